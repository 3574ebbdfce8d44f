"""How much memory this process may really use: the machine's and the cgroup's limit."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup"), machine_bytes: int | None = None) -> int:
    """Tell how many bytes of memory may be used.

    Args:
        cgroup: Where the cgroup file system is.
        machine_bytes: Memory of the machine; asked from the system if None.

    Source: kernel documentation of cgroup v2, `memory.max` and `memory.high`; v1, `memory.limit_in_bytes`,
    where no limit is a number larger than any machine.
    """
    if machine_bytes is None:
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (cgroup / "memory.max", cgroup / "memory.high", cgroup / "memory/memory.limit_in_bytes")
    return min([machine_bytes, *(limit for limit in map(_read, limits) if limit)])


def _read(limit: Path) -> int:
    try:
        text = limit.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
