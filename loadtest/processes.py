"""Server processes: started on their own core, watched through /proc, stopped for good.

Knows Linux and nothing of protocols, apart from asking a URL whether the server is ready.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_READY_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 15


class ServerFailedError(RuntimeError):
    """A server did not start, or died during the run."""


@dataclass(frozen=True)
class Launch:
    """How a server is started and how one sees that it is ready."""

    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    ready_path: str


def free_port() -> int:
    """Ask the kernel for a TCP port of loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def parse_stat(stat: str) -> tuple[int, int]:
    """Read the parent and the CPU ticks (own and waited-for children's) of a /proc/PID/stat line.

    Source: proc(5); fields are counted after the command's closing parenthesis, since
    the command itself may hold spaces and parentheses.
    """
    columns = stat[stat.rindex(")") + 2 :].split()
    return int(columns[1]), sum(int(column) for column in columns[11:15])


def _stats() -> dict[int, tuple[int, int]]:
    stats: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended between listing and reading
    return stats


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """Collect a process and everything it started, given each process's parent."""
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def tree_cpu_us(root: int) -> int:
    """Sum the CPU time that a process and its descendants have used."""
    stats = _stats()
    tree = descendants(root, {pid: parent for pid, (parent, _) in stats.items()})
    return sum(stats[pid][1] for pid in tree if pid in stats) * _TICK_US


def tree_rss_bytes(root: int) -> int:
    """Sum the proportional share of resident memory of a process and its descendants.

    Pages shared by several of the processes count once (PSS), so that a server of many
    processes is not charged twice for one library.
    """
    tree = descendants(root, {pid: parent for pid, (parent, _) in _stats().items()})
    total = 0
    for pid in tree:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


class RunningServer:
    """A server from its start to its end; leaving the context ends the whole process group."""

    def __init__(self, launch: Launch, core: int | None, log: Path) -> None:
        self._launch = launch
        self._core = core
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ns = 0
        self.ready_us = 0
        """From the start of the process to its first yes to "are you ready?"."""

    @property
    def pid(self) -> int:
        """The server's first process."""
        if self._process is None:
            raise ServerFailedError("the server was not started")
        return self._process.pid

    def __enter__(self) -> RunningServer:
        pin = [] if self._core is None else ["taskset", "-c", str(self._core)]
        self._started_ns = time.monotonic_ns()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*pin, *self._launch.command],
                env={**os.environ, **self._launch.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._wait_ready(self._started_ns + _READY_TIMEOUT_S * 1_000_000_000)
        except BaseException:
            self._stop()
            raise
        self.ready_us = self.age_us()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def age_us(self) -> int:
        """Time since the process was started."""
        return (time.monotonic_ns() - self._started_ns) // 1_000

    def check_alive(self) -> None:
        """Raise when the server has ended.

        Raises:
            ServerFailedError: It has; the message ends with its log.
        """
        if self._process is not None and self._process.poll() is not None:
            raise ServerFailedError(
                f"{self._launch.command[0]} ended with {self._process.returncode}: {self._tail()}"
            )

    def _wait_ready(self, deadline_ns: int) -> None:
        # A foreign server can only be asked; every 5 ms is fine enough for a start of a second.
        while time.monotonic_ns() < deadline_ns:
            self.check_alive()
            connection = http.client.HTTPConnection("127.0.0.1", self._launch.port, timeout=5)
            try:
                connection.request("GET", self._launch.ready_path)
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass  # not listening yet
            finally:
                connection.close()
            time.sleep(0.005)
        raise ServerFailedError(f"not ready after {_READY_TIMEOUT_S} s: {self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]

    def _stop(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        self._signal(signal.SIGKILL)  # what the server left behind in its group, too
        self._process.wait(_STOP_TIMEOUT_S)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
