from __future__ import annotations

from pathlib import Path

import pytest
from kingpole.memory import available_memory_bytes


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.max", "max", 4096),
        ("memory.max", "1000\n", 1000),
        ("memory.max", "8192", 4096),
        ("memory.high", "500", 500),
        ("memory.max", "nonsense", 4096),
        ("memory/memory.limit_in_bytes", "700", 700),
        ("memory/memory.limit_in_bytes", "9223372036854771712", 4096),
    ],
)
def test_the_smaller_of_machine_and_cgroup_counts(
    tmp_path: Path, file: str, text: str, expected: int
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert available_memory_bytes(tmp_path, machine_bytes=4096) == expected


def test_without_a_cgroup_it_is_the_machines(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) > 1 << 20
