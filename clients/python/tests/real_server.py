"""The real server as a process of its own, for the tests that need one."""

import contextlib
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

ECHO = """\
backend: identity
max_batch_size: 0
inputs:
  - {name: x, datatype: FP32, shape: [-1, -1]}
outputs:
  - {name: x, datatype: FP32, shape: [-1, -1]}
"""


def skip_without_the_server() -> None:
    """The client can be installed and tested without its server."""
    try:
        there = find_spec("kingpole._core") is not None
    except ImportError:
        there = False
    if not there:
        pytest.skip("the server is not installed (no kingpole._core)")


def write_echo(repository):
    """Put the model `echo` there, which gives back FP32 `x` of any two dimensions."""
    (repository / "echo").mkdir(parents=True)
    (repository / "echo" / "model.yaml").write_text(ECHO)
    return repository


@contextlib.contextmanager
def serving(repository, *arguments):
    """Serve on a free port; yields host:port once the server says that it is ready."""
    skip_without_the_server()
    command = [*(sys.executable, "-m", "kingpole", "serve", str(repository), "--listen", "127.0.0.1:0")]
    command += ["--management", "off", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield _address_once_ready(process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _address_once_ready(process) -> str:
    """Read the banner until it says that the server is ready; returns the bound host:port."""
    address, said = "", []
    for line in process.stdout:
        said.append(line)
        found = re.search(r"127\.0\.0\.1:[1-9]\d*", line)
        address = found[0] if found else address
        if line.startswith("ready"):
            return address
    raise AssertionError(f"the server did not start: {''.join(said)}")
