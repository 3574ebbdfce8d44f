"""The real server as a process that can be killed, started again where it was, and asked what it counted.

Knows the server's command line and banner, and no client.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(__file__).resolve().parent / "models"
_READY_LIMIT_S = 90.0
_FORWARDED = "^authorization$"


class ServerFailedError(RuntimeError):
    """The server did not start; the message ends with its log."""


def server_command() -> list[str]:
    """Return the server's command: what KINGPOLE says, or the one of this checkout."""
    given = os.environ.get("KINGPOLE")
    return shlex.split(given) if given else [str(ROOT / ".venv" / "bin" / "kingpole")]


class Server:
    """A server of the conformance models; listens on loopback and on a Unix socket."""

    def __init__(self, directory: Path, arguments: Sequence[str] = (), scheme_suffix: str = "") -> None:
        self._path = directory / "socket"
        self._arguments, self._suffix = list(arguments), scheme_suffix
        self._port = self._management_port = 0
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self.start()

    def start(self) -> None:
        """Start it; again at the address that it had before.

        Raises:
            ServerFailedError: It does not become ready.
        """
        command = [
            *server_command(), "serve", str(MODELS), "--listen", f"127.0.0.1:{self._port}",
            "--listen", f"unix:{self._path}", "--management", f"127.0.0.1:{self._management_port}",
            "--http-header-forward-pattern", _FORWARDED, "--grpc-header-forward-pattern", _FORWARDED,
            *self._arguments,
        ]  # fmt: skip
        self._log = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        settled = threading.Event()
        threading.Thread(target=self._listen, args=(self._process, settled), daemon=True).start()
        settled.wait(_READY_LIMIT_S)
        if not any(line.startswith("ready,") for line in self._log):
            said = "\n".join(self._log[-20:])
            self.kill()
            raise ServerFailedError(f"the server did not become ready:\n{said}")
        said = "\n".join(self._log)
        self._port = _number(r"listens on https?://[\d.]+:(\d+)", said)
        self._management_port = _number(r"management on http://[\d.]+:(\d+)", said)

    def _listen(self, process: subprocess.Popen[str], settled: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self._log.append(line.rstrip())
                if line.startswith("ready,"):
                    settled.set()
        settled.set()

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def url(self, transport: str) -> str:
        """Return the URL for one of the four transports."""
        return (
            f"unix:{self._path}" if transport == "unix" else f"{transport}{self._suffix}://{self.authority}"
        )

    def kill(self) -> None:
        """End it at once, as a machine that loses power would; its workers die with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)

    def cancelled(self) -> int:
        """Return how many requests to `sleeps` were cancelled, as the server counted."""
        address = f"http://127.0.0.1:{self._management_port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        return _number(r'kingpole_requests_total\{model="sleeps",version="1",code="CANCELLED"\} (\d+)', text)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ServerFailedError(f"the server did not say {pattern!r}:\n{text[-2000:]}")
    return int(found[1])


def await_path(path: Path, seconds: float) -> bool:
    """Wait until there is something at a path; returns whether there is."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
