from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import h2load

_OUTPUT = """
finished in 2.00s, 2812.00 req/s, 381.83KB/s
requests: 5624 total, 5625 started, 5624 done, 5624 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 5624 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 763.65KB (781982) total, 16.55KB (16947) headers (space savings 96.28%), 521.76KB (534280) data
"""


def test_the_summary_and_the_log_become_numbers() -> None:
    loaded = h2load.parse(_OUTPUT, ["1\t200\t1020", "2\t200\t420", "3\t200\t500"])
    assert (loaded.succeeded, loaded.failed, loaded.elapsed_us) == (5624, 0, 2_000_000)
    assert loaded.rate == 2812.0
    assert loaded.body_bytes_each == 95.0
    assert loaded.latencies_us == [420, 500, 1020]


def test_a_status_other_than_200_in_the_log_is_a_failure() -> None:
    loaded = h2load.parse(_OUTPUT, ["1\t200\t10", "2\t503\t5"])
    assert loaded.failed == 1
    assert loaded.latencies_us == [10]


def test_a_log_that_was_cut_off_loses_only_its_last_line() -> None:
    assert h2load.parse(_OUTPUT, ["1\t200\t10", "2\t20"]).latencies_us == [10]


def test_milliseconds_in_the_summary_are_understood() -> None:
    assert h2load.parse(_OUTPUT.replace("2.00s", "250.50ms"), []).elapsed_us == 250_500


def test_output_without_a_summary_is_an_error() -> None:
    with pytest.raises(h2load.OutputError):
        h2load.parse("h2load: connection refused", [])


@pytest.mark.parametrize(
    ("in_flight", "connections", "streams"), [(1, "1", "1"), (8, "4", "2"), (128, "4", "32")]
)
def test_grpc_requests_in_flight_are_spread_over_four_connections(
    in_flight: int, connections: str, streams: str
) -> None:
    command = h2load.grpc_command("http://h/p", Path("body"), in_flight, 3, None)
    assert command[command.index("-c") + 1] == connections
    assert command[command.index("-m") + 1] == streams
    assert "te: trailers" in command


def test_http1_uses_one_connection_for_each_request_in_flight() -> None:
    command = h2load.http1_command("http://h/p", Path("body"), 32, 3, Path("log"), "application/json")
    assert command[command.index("-c") + 1] == "32"
    assert "--h1" in command
    assert "--log-file=log" in command
