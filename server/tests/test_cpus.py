from __future__ import annotations

from pathlib import Path

import pytest
from kingpole.cpus import available_cpus


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", 8)],
)
def test_the_cgroups_limit_is_kept(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    assert available_cpus(tmp_path, affinity=8) == expected


def test_affinity_is_kept_without_a_cgroup(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, affinity=3) == 3


def test_the_old_cgroups_limit_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(tmp_path, affinity=8) == 1
