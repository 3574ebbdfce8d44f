"""The built image, run and looked into."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kingpole_client
import numpy as np
import pytest
from unpacked_image import IMAGE, Running, UnpackedImage, buildah, why_not

ROOT = Path(__file__).parents[2]
DEMO = ROOT / ".cache" / "demo"
MOST_BYTES = 250_000_000
HEALTH_CPU_SECONDS = 0.1
# Hosts that are named in public files anyway.
PUBLIC = {"pypi.org", "files.pythonhosted.org", "crates.io", "index.crates.io", "localhost", "127.0.0.1"}
# Says over the network, which is the only way out, that it has begun, and goes on when it is answered.
HELD = """
import socket
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    if x[0, 0] == 7:
        with socket.socket(type=socket.SOCK_DGRAM) as asking:
            asking.settimeout(30)
            asking.sendto(b"begun", ("127.0.0.1", PORT))
            asking.recv(16)
    return x + 1
"""

# Runs a command ten times, and prints the least it took: processor seconds, then seconds.
MEASURE = """
import os, sys, time
def once():
    before, begun = os.times(), time.perf_counter()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    assert os.waitpid(pid, 0)[1] == 0
    took, after = time.perf_counter() - begun, os.times()
    return after[2] - before[2] + after[3] - before[3], took
print(*map(min, zip(*[once() for _ in range(10)])))
"""

_missing = why_not()
pytestmark = [pytest.mark.image, pytest.mark.skipif(_missing is not None, reason=_missing or "")]
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason="the demo's model is missing: make setup")


@pytest.fixture(scope="module")
def image() -> Iterator[UnpackedImage]:
    unpacked = UnpackedImage()
    try:
        unpacked.unpack()
        yield unpacked
    finally:
        unpacked.remove()


@pytest.fixture
def start(image: UnpackedImage) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(models: Path, *arguments: str) -> Running:
        command = (
            "kingpole",
            "serve",
            "/models",
            "--listen",
            "127.0.0.1:0",
            "--management",
            "off",
            *arguments,
        )
        started.append(image.run(models, *command))
        started[-1].read_until("ready,", "not ready:")
        return started[-1]

    yield begin
    for each in started:
        each.end()


def address(running: Running) -> str:
    return running.find(r"listens on http://([\d.]+:\d+)")


def processes(running: Running) -> list[int]:
    first = running.first_process()
    children = [
        int(child)
        for thread in Path(f"/proc/{first}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [first, *children]


@needs_demo
def test_the_demo_model_is_served_over_http_and_grpc_as_onnx_runtime_computes_it(
    start: Callable[..., Running],
) -> None:
    import onnxruntime

    picture = np.random.default_rng(7).integers(0, 256, (1, 224, 224, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(next(DEMO.glob("*/1/model.onnx"))))
    (expected,) = session.run(["probs"], {"image": picture})
    served = start(DEMO)
    for scheme in ("http", "grpc"):
        with kingpole_client.connect(f"{scheme}://{address(served)}") as client:
            probs = client.infer("efficientnet-lite0", {"image": picture}).outputs["probs"]
        np.testing.assert_allclose(probs, expected, atol=1e-5)


@needs_demo
def test_every_process_is_uid_1000_without_capabilities(start: Callable[..., Running]) -> None:
    found = processes(start(DEMO, "--worker", "shared"))
    assert len(found) > 1
    for pid in found:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["1000"] * 4
        assert status["Gid"].split() == ["1000"] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def test_nothing_can_be_written_and_no_shell_started(image: UnpackedImage, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    program = (
        "import os, subprocess\n"
        "for directory in ('/', '/tmp', '/var/tmp', '/dev/shm', '/models', '/opt/kingpole', '/run'):\n"
        "    try: open(os.path.join(directory, 'x'), 'w')\n"
        "    except OSError: continue\n"
        "    print('can write', directory)\n"
        "try: subprocess.run(['/bin/sh', '-c', 'true'])\n"
        "except FileNotFoundError: print('no shell')\n"
    )
    assert image.run(tmp_path, "python", "-c", program).wait() == (0, "no shell\n")


@needs_demo
def test_the_images_health_check_follows_the_server_and_takes_little(
    image: UnpackedImage, start: Callable[..., Running]
) -> None:
    kind, *check = image.configuration["Healthcheck"]["Test"]
    assert kind == "CMD"
    served = start(DEMO)
    url = f"http://{address(served)}"
    assert image.run(DEMO, *check, KINGPOLE_URL=url).wait() == (0, "ready\n")
    code, said = image.run(DEMO, "python", "-c", MEASURE, *check, KINGPOLE_URL=url).wait()
    assert code == 0, said
    # Of the processor, since a busy machine is not the image's fault.
    assert float(said.split()[-2]) < HEALTH_CPU_SECONDS, said
    served.terminate()
    served.wait()
    code, said = image.run(DEMO, *check, KINGPOLE_URL=url).wait()
    assert code == 1
    assert "Connection refused" in said


def test_a_termination_signal_drains_although_the_server_is_process_1(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    answers: list[Any] = []

    def ask(host_and_port: str) -> None:
        with kingpole_client.connect(f"http://{host_and_port}") as client:
            answers.append(client.infer("held", {"x": np.full((1, 4), 7, np.float32)}).outputs["y"])

    with socket.socket(type=socket.SOCK_DGRAM) as holding:
        holding.bind(("127.0.0.1", 0))
        holding.settimeout(30)
        (tmp_path / "held" / "1").mkdir(parents=True)
        source = HELD.replace("PORT", str(holding.getsockname()[1]))
        (tmp_path / "held" / "1" / "model.py").write_text(source)
        tmp_path.chmod(0o755)  # for uid 1000
        served = start(tmp_path)
        asking = threading.Thread(target=ask, args=(address(served),))
        asking.start()
        _, model = holding.recvfrom(16)
        served.terminate()
        served.read_until("draining")
        holding.sendto(b"go on", model)
    asking.join(timeout=30)
    assert [answer.tolist() for answer in answers] == [[[8, 8, 8, 8]]]
    assert served.wait()[0] == 0


def test_the_images_own_command_listens_to_everyone_on_the_port_it_exposes(
    image: UnpackedImage, tmp_path: Path
) -> None:
    said = image.run(
        tmp_path, *image.configuration["Entrypoint"], *image.configuration["Cmd"], "--print-config"
    ).wait()
    assert said[0] == 0
    assert "0.0.0.0:8000" in said[1]
    assert set(image.configuration["ExposedPorts"]) == {"8000/tcp"}
    assert image.configuration["StopSignal"] == "SIGTERM"
    assert image.configuration["User"] == "1000:1000"


def test_the_labels_say_what_is_inside(image: UnpackedImage) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): text
        for name, text in image.configuration["Labels"].items()
    }
    assert labels["title"] == "kingpole"
    assert labels["licenses"] == "Apache-2.0"
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert labels["version"] == version.group(1)
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])


def test_every_python_package_is_in_the_bill_of_materials(image: UnpackedImage) -> None:
    bill = json.loads((image.root / "opt/kingpole/share/sbom/python.cdx.json").read_text())
    named = {re.sub(r"[-_.]+", "-", part["name"].lower()) for part in bill["components"]}
    installed = {
        re.sub(r"[-_.]+", "-", path.name.rsplit("-", 2)[0].lower())
        for path in image.root.glob("opt/kingpole/lib/python3*/site-packages/*.dist-info")
    }
    assert {"kingpole", "onnxruntime", "numpy"} <= installed <= named
    crates = (image.root / "opt/kingpole/share/sbom/crates.txt").read_text().splitlines()
    assert any(re.fullmatch(r"tokio v\S+ MIT", line) for line in crates), crates[:5]


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The layers as an engine stores them, uncompressed, lowest first."""
    directory = tmp_path_factory.mktemp("image")
    buildah("push", IMAGE, f"docker-archive:{directory}/image.tar")
    with tarfile.open(directory / "image.tar") as archive:
        archive.extractall(directory, filter="data")
    manifest = json.loads((directory / "manifest.json").read_text())
    return [directory / layer for layer in manifest[0]["Layers"]]


def test_the_image_is_small(layers: list[Path]) -> None:
    assert sum(layer.stat().st_size for layer in layers) < MOST_BYTES


def files(layers: list[Path]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    for layer in layers:
        with tarfile.open(layer) as opened:
            for member in opened:
                yield opened, member


def test_what_was_added_belongs_to_root_and_nobody_else_may_change_it(layers: list[Path]) -> None:
    seen = 0
    for _, member in files(layers):
        assert (member.uid, member.gid) != (1000, 1000), member.name
        if member.name.startswith(("opt/kingpole", "models")):
            seen += 1
            assert (member.uid, member.gid) == (0, 0), member.name
            assert member.issym() or not member.mode & 0o022, member.name
            assert not member.mode & 0o6000, member.name
    assert seen > 100


def names_of_this_machine() -> set[bytes]:
    """Where this machine fetches packages and keeps this repository: nothing that may be in an image."""
    texts = [text for name, text in os.environ.items() if name.lower().endswith("_proxy")]
    texts.append(
        subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    )
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "config.toml"
    texts.append(cargo.read_text() if cargo.is_file() else "")
    hosts = {host for text in texts for host in re.findall(r"://(?:[^/@\s]*@)?([\w.-]+)", text)}
    return {name.encode() for name in {*(hosts - PUBLIC), str(ROOT)}}


def test_no_layer_holds_anything_of_the_machine_that_built_it(
    layers: list[Path], image: UnpackedImage
) -> None:
    forbidden = re.compile(
        r"(^|/)(pip\.conf|\.netrc|\.pypirc|\.git-credentials|credentials(\.toml)?|\.cargo(/.*)?|id_\w+|\.ssh/.+)$"
        r"|^run/secrets/.|^source/|^root/(?!\.bashrc$|\.profile$|\.?$).+"
    )
    certificates = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    digest = hashlib.sha256(certificates.read_bytes()).digest() if certificates.is_file() else b""
    names = names_of_this_machine()
    looked_into = 0
    for layer, member in files(layers):
        assert not forbidden.search(member.name), member.name
        content = layer.extractfile(member) if member.isreg() else None
        if content is None:
            continue
        looked_into += 1
        data = content.read()
        assert not [name for name in names if name in data], member.name
        assert hashlib.sha256(data).digest() != digest, member.name
    assert looked_into > 1000
    told = json.loads(buildah("inspect", "--type", "image", IMAGE))
    assert not [name for name in names if name in json.dumps(told).encode()]
    python = {"LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"}  # of python:*-slim as BASE
    ours = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert ours <= {entry.split("=")[0] for entry in image.configuration["Env"]} <= ours | python
