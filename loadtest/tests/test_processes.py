from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from loadtest.processes import (
    Launch,
    RunningServer,
    ServerFailedError,
    descendants,
    free_port,
    parse_stat,
    tree_cpu_us,
    tree_rss_bytes,
)


def test_a_command_with_spaces_and_parentheses_does_not_confuse_the_stat_line() -> None:
    stat = "12 (a) b) (c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0 5 6 7"
    assert parse_stat(stat) == (7, 127)


def test_descendants_are_children_and_their_children_only() -> None:
    assert descendants(1, {2: 1, 3: 2, 4: 9, 5: 3}) == {1, 2, 3, 5}


def test_cpu_time_of_this_process_grows_with_work() -> None:
    before = tree_cpu_us(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert tree_cpu_us(os.getpid()) - before >= 50_000
    assert tree_rss_bytes(os.getpid()) > 1_000_000


def _http_server(directory: Path) -> Launch:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(directory),
        str(port),
    ]
    return Launch(command, {}, port, "/")


def test_a_server_is_ready_inside_the_context_and_gone_after_it(tmp_path: Path) -> None:
    with RunningServer(_http_server(tmp_path), None, tmp_path / "log") as server:
        assert server.ready_us > 0
        pid = server.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    launch = Launch([sys.executable, "-c", "raise SystemExit('no such model')"], {}, free_port(), "/")
    with (
        pytest.raises(ServerFailedError, match="no such model"),
        RunningServer(launch, None, tmp_path / "log"),
    ):
        pass
