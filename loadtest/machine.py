"""Where and how a run was made, so that its numbers can be judged and repeated."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from loadtest.processes import REPOSITORY_ROOT


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _commit() -> str:
    command = ["git", "-C", str(REPOSITORY_ROOT)]
    try:
        commit = subprocess.check_output([*command, "rev-parse", "--short=12", "HEAD"], text=True).strip()
        changed = subprocess.check_output(
            [*command, "status", "--porcelain", "--untracked-files=no"], text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with uncommitted changes" if changed.strip() else commit


def _relative(path: str) -> str:
    """Name a file of this checkout without saying where that lies."""
    return path.removeprefix(f"{REPOSITORY_ROOT}/")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe(arguments: list[str], server_core: int | None, generator_core: int | None) -> dict[str, str]:
    """Describe the machine, the commit, the command, the date and the versions."""
    pinned = (
        "not pinned (one core)"
        if server_core is None
        else f"server on {server_core}, generator on {generator_core}"
    )
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python -m loadtest.bench {shlex.join(arguments)}",
        "commit": _commit(),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, "
        f"{_memory_gib():.0f} GiB, Linux {platform.release()}",
        "cores": pinned,
        "load before the run": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "versions": f"Python {platform.python_version()}, onnxruntime {_version('onnxruntime')}, "
        "Triton 2.51.0 (nvidia-pytriton 0.7.0), mosec 0.9.8",
        "python": _relative(sys.executable),
    }
