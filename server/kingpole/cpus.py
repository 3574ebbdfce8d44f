"""How many processors this process may really use: affinity and the cgroup's limit."""

from __future__ import annotations

import os
from pathlib import Path


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup"), affinity: int | None = None) -> int:
    """Count the processors that may be used, at least 1.

    Args:
        cgroup: Where the cgroup file system is.
        affinity: Processors this process may be scheduled on; asked from the system if None.

    Source: kernel documentation of cgroup v2, `cpu.max`; v1, `cpu.cfs_quota_us`.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    limit = _limit(cgroup)
    if limit is not None:
        # Half a processor still needs one thread; 1.5 are used by two.
        allowed = min(allowed, max(1, -int(-limit // 1)))
    return max(1, allowed)


def _limit(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
