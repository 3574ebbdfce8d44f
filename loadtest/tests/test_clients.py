"""The table of the clients: what is believed of their output, and how it is compared."""

import json

import pytest

from loadtest.clients.table import OutputError, Sample, as_json, markdown, parse

ROW = {"contender": "kingpole", "bytes": 16, "requests": 10, "cpu_us": 8.0, "p50_us": 9, "p99_us": 12}


def samples(round_: int, **cpu_us: float) -> list[Sample]:
    return [Sample("go", "grpc", round_, name, 16, 10, cost, 9, 12) for name, cost in cpu_us.items()]


def test_rows_are_found_among_what_tools_say() -> None:
    found = parse("go", "grpc", 2, ["building", json.dumps(ROW), ""])
    assert found == [Sample("go", "grpc", 2, "kingpole", 16, 10, 8.0, 9, 12)]


@pytest.mark.parametrize(
    "lines",
    [[], ["done"], ["{"], [json.dumps({**ROW, "cpu_us": "8"})], [json.dumps({**ROW, "p50_us": -1})],
     [json.dumps({"contender": "kingpole"})], [json.dumps({**ROW, "contender": 3})]],
)  # fmt: skip
def test_what_is_no_row_is_refused(lines: list[str]) -> None:
    with pytest.raises(OutputError, match="go"):
        parse("go", "grpc", 1, lines)


def test_ratios_are_taken_within_a_round() -> None:
    measured = [*samples(1, kingpole=10, stubs=20, floor=5), *samples(2, kingpole=40, stubs=40, floor=20)]
    page = markdown(measured)
    assert "## 16 bytes over grpc" in page
    row = next(line for line in page.splitlines() if "| kingpole |" in line)
    assert row == "| go | kingpole | 25 (10-40) | 9 | 12 | 0.75 (0.50-1.00) | 2.00 | - |"
    stubs = next(line for line in page.splitlines() if "| stubs |" in line)
    assert stubs.endswith("|  |  |  |")
    assert len(json.loads(as_json({}, measured, []))["samples"]) == 6
