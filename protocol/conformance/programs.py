"""A client's own programs: run, listened to, and ended in time. Knows no case and no server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

NOT_APPLICABLE = 77
_LAST_LINES = 12
_LONGEST_LINE = 2000
_MOST_LINES = 2000


class State(Enum):
    """How a case ended."""

    OK = "ok"
    FAILED = "FAILED"
    NOT_APPLICABLE = "-"
    NO_TOOLCHAIN = "no toolchain"


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and why; a good end has a reason only if it was not the first try."""

    state: State
    reason: str = ""


OK = Outcome(State.OK)


def failed(reason: str) -> Outcome:
    """Make the outcome of a failure."""
    return Outcome(State.FAILED, reason)


@dataclass(frozen=True)
class Ended:
    """A program that has ended: its status, None if that was because its time was over, and what it said."""

    status: int | None
    lines: Sequence[str]
    limit_s: float

    def outcome(self) -> Outcome:
        """Judge the program by its status alone."""
        if self.status == 0:
            return OK
        if self.status == NOT_APPLICABLE:
            said = next((line for line in reversed(self.lines) if line.strip()), "")
            return Outcome(State.NOT_APPLICABLE, said.strip() or "no reason given")
        said = "\n".join(self.lines[-_LAST_LINES:]).strip() or "it said nothing"
        if self.status is None:
            return failed(f"not at its end after {self.limit_s:g} s:\n{said}")
        ended = f"killed by signal {-self.status}" if self.status < 0 else f"status {self.status}"
        return failed(f"{ended}:\n{said}")


def run_program(
    command: Sequence[str | Path], limit_s: float, on_line: Callable[[str], None] | None = None
) -> Ended:
    """Run a program to its end, and end it with all it has started when its time is over.

    Args:
        command: What to run.
        limit_s: How long it may take.
        on_line: Called with each line that it prints, as it comes.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    is_over = threading.Event()

    def end_group() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def expire() -> None:
        is_over.set()
        end_group()

    timer = threading.Timer(limit_s, expire)
    timer.start()
    lines: list[str] = []
    try:
        assert process.stdout is not None
        with process.stdout:
            while line := process.stdout.readline(_LONGEST_LINE):
                lines.append(line.rstrip("\n"))
                # The end of what it says is what matters; a program that says too much must not fill memory.
                del lines[:-_MOST_LINES]
                if on_line is not None:
                    on_line(lines[-1])
        status = process.wait()
    finally:
        timer.cancel()
        # What it left behind, such as a child that keeps its output open, ends too.
        end_group()
    return Ended(None if is_over.is_set() else status, lines, limit_s)
