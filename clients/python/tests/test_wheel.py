"""The wheel as its users get it: built, installed beside nothing but what it asks for, imported, used."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import real_server

PROJECT = Path(__file__).parents[1]
WHEELS = PROJECT.parents[1] / ".cache" / "clients" / "wheels"
INFER = """
import sys, numpy, kingpole_client
x = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
for scheme in ("http", "frame"):
    with kingpole_client.connect(f"{scheme}://{sys.argv[1]}") as client:
        assert (client.infer("echo", {"x": x})["x"] == x).all()
        assert client.models()[0].name == "echo"
"""
EXTRAS = """
import asyncio, kingpole_client
try:
    kingpole_client.connect("grpc://localhost:1")
except kingpole_client.Unimplemented as error:
    print(error.message)
async def ask():
    async with await kingpole_client.aconnect("http://localhost:1") as client:
        await client.infer("m", {})
try:
    asyncio.run(ask())
except kingpole_client.Unimplemented as error:
    print(error.message)
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(PROJECT))
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A Python that has the wheel, and what the wheel asks for."""
    if not (WHEELS / ".installed").exists():
        pytest.skip("numpy's and flatbuffers' wheels are missing; get them with server/tests/clients/setup")
    directory = tmp_path_factory.mktemp("clean")
    venv.create(directory, with_pip=False)
    python = str(directory / "bin" / "python")
    pip("--python", python, "install", "--no-index", "--find-links", str(WHEELS), str(wheel))
    return python


def run(python, code, *arguments):
    ended = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_holds_the_package_its_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "kingpole_client").rglob("*.py")}
    assert modules | {"kingpole_client/py.typed"} == {name for name in names if ".dist-info/" not in name}


def test_the_installed_package_is_imported_in_less_than_60_ms(python):
    code = "import time; t = time.perf_counter(); import kingpole_client; print(time.perf_counter() - t)"
    # The best of a few: a busy machine is not the import's fault.
    assert min(float(run(python, code)) for _ in range(5)) < 0.06


def test_the_installed_package_infers(python, tmp_path):
    with real_server.serving(real_server.write_echo(tmp_path)) as address:
        run(python, INFER, address)


def test_what_an_extra_would_bring_is_named_when_it_is_missing(python):
    grpc, aio = run(python, EXTRAS).splitlines()
    assert "pip install 'kingpole-client[grpc]'" in grpc
    assert "pip install 'kingpole-client[aio]'" in aio
