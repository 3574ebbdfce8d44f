"""A whole server as a process, for tests; what they share of asking it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

needs_core = pytest.mark.skipif(
    importlib.util.find_spec("kingpole._core") is None, reason="kingpole._core is not built"
)

PLUS = """
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    return x + 1
"""


def refused_at_the_start(*arguments: object) -> str:
    """Start a server that is to refuse; gives what it says of it."""
    ended = subprocess.run(
        [sys.executable, "-m", "kingpole", "serve", "--listen", "127.0.0.1:0", "--management", "off",
         *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    return ended.stderr


class Served:
    """A server process; its lines are read until it says that it is ready or not."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kingpole", "serve", "--listen", "127.0.0.1:0",
             "--management", "127.0.0.1:0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        self.lines: list[str] = []
        self.read_until("ready,", "not ready:")
        said = "\n".join(self.lines)
        self.url = self._find(r"listens on (http://[\d.]+:\d+)", said)
        self.management = self._find(r"management on (http://[\d.]+:\d+)", said)

    def _find(self, pattern: str, text: str) -> str:
        found = re.search(pattern, text)
        assert found, text
        return found.group(1)

    def read_until(self, *starts: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if line.startswith(starts):
                return
        raise AssertionError("the server ended:\n" + "\n".join(self.lines))

    def ask(self, path: str, body: Any = None, base: str | None = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request((base or self.url) + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())

    def infer(self, model: str, data: list[list[float]], shape: list[int] | None = None) -> Any:
        tensor = {"name": "x", "datatype": "FP32", "shape": shape or [len(data), len(data[0])], "data": data}
        return self.ask(f"/v2/models/{model}/infer", {"inputs": [tensor]})

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task")
        return [
            int(child) for thread in listed.iterdir() for child in (thread / "children").read_text().split()
        ]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


@pytest.fixture
def start() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def make(*arguments: object) -> Served:
        started.append(Served(*map(str, arguments)))
        return started[-1]

    yield make
    for each in started:
        each.end()


def write_model(repository: Path, name: str, source: str) -> None:
    """Lay a Python model out in a repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(source)
