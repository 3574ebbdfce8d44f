from __future__ import annotations

from loadtest.budgets import judge
from loadtest.cells import IdleMeasurement, Measurement, Results, Start, Workload, summarize
from loadtest.report import as_json, markdown


def _cell(peer: str, round_: int, rate: float, cpu_us: float, in_flight: int = 32) -> Measurement:
    return Measurement("tiny", peer, in_flight, round_, rate, 1_000, 2_000, cpu_us, 8.0, 50_000_000, 0.9)


def _results(measurements: list[Measurement]) -> Results:
    idle = IdleMeasurement("kingpole", 5_000, 20_000_000, 100.0, 99.0, 10.0, 10.1)
    starts = [Start("tiny", "kingpole", 1, 900_000, 950_000, 60_000_000)]
    return Results(measurements, starts, [], [idle], None, 1.9)


def test_ratios_are_taken_round_by_round() -> None:
    measurements = [
        _cell("kingpole", 1, 400, 10),
        _cell("triton", 1, 100, 100),
        _cell("kingpole", 2, 200, 20),  # the machine was half as fast in this round
        _cell("triton", 2, 50, 200),
    ]
    (own, _) = summarize(measurements, "triton")
    assert own.rate_ratio is not None
    assert own.cpu_ratio is not None
    assert (own.rate_ratio.least, own.rate_ratio.greatest) == (4.0, 4.0)
    assert (own.cpu_ratio.least, own.cpu_ratio.greatest) == (0.1, 0.1)
    assert (own.rate.median, own.rate.least, own.rate.greatest) == (300, 200, 400)


def test_a_round_without_the_reference_has_no_ratio() -> None:
    (own,) = summarize([_cell("kingpole", 1, 400, 10)], "triton")
    assert own.rate_ratio is None


def test_budgets_are_judged_by_the_median_and_missing_cells_are_not_judged() -> None:
    measurements = [_cell("kingpole", 1, 390, 20), _cell("triton", 1, 100, 100)]
    verdicts = {
        (verdict.what, verdict.limit): verdict.met
        for verdict in judge(summarize(measurements, "triton"), _results(measurements))
    }
    assert verdicts["tiny, kingpole, 32 in flight: CPU per request", "<= 0.25x Triton"] is True
    assert verdicts["tiny, kingpole, 32 in flight: req/s", ">= 4x Triton"] is False
    assert verdicts["tiny, kingpole, 128 in flight: req/s", ">= 4x Triton"] is None
    assert verdicts["start to ready", "< 1.5 s"] is True
    assert verdicts["memory of the server without a framework", "< 80 MB"] is None
    assert verdicts["requests per CPU second beside 5,000 idle connections", ">= 0.95x"] is True


def test_the_page_shows_each_cell_each_budget_and_each_problem() -> None:
    measurements = [_cell("kingpole", 1, 400, 10), _cell("triton", 1, 100, 100)]
    workload = Workload("Tiny", "tiny", "grpc", (32,), ("kingpole", "triton"))
    page = markdown({"commit": "abc"}, [workload], _results(measurements), ["mosec: not there"])
    assert "- commit: abc" in page
    cell = "| 32 | kingpole | 400 | 1,000 | 2,000 | 10.0 | 90% | 8.0 | 50 | 4.00x | 1.00x | 0.10x | 0.12x |"
    assert cell in page
    assert "- mosec: not there" in page
    assert '"rate": 400' in as_json({}, _results(measurements), [])
