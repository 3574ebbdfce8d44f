"""The budgets of the design, judged by the numbers of one run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.cells import Results, Row, summarize
from loadtest.percentiles import Spread

START_TO_READY_US = 1_500_000
EMPTY_RSS_BYTES = 80_000_000
IDLE_CONNECTIONS_BYTES = 100_000_000
IDLE_THROUGHPUT_SHARE = 0.95
SCALING = 1.7


@dataclass(frozen=True)
class Budget:
    """A limit on one cell's ratio to the reference peer."""

    workload: str
    peer: str
    in_flight: int
    field: str  # rate_ratio, cpu_ratio or p50_ratio
    limit: float

    @property
    def at_least(self) -> bool:
        """Rates must reach their limit; costs and times must stay below theirs."""
        return self.field == "rate_ratio"

    def met(self, ratio: float) -> bool:
        """Judge a ratio."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


@dataclass(frozen=True)
class Verdict:
    """A budget beside what was measured; `met` is None when the run did not measure it."""

    what: str
    limit: str
    measured: str
    met: bool | None


AGAINST_TRITON = (
    Budget("tiny", "kingpole", 8, "cpu_ratio", 0.4),
    Budget("tiny", "kingpole", 32, "cpu_ratio", 0.25),
    Budget("tiny", "kingpole", 128, "cpu_ratio", 0.25),
    Budget("tiny", "kingpole", 32, "rate_ratio", 4.0),
    Budget("tiny", "kingpole", 128, "rate_ratio", 4.0),
    Budget("tiny", "kingpole", 1, "p50_ratio", 0.9),
    Budget("tiny", "kingpole shared", 32, "cpu_ratio", 0.5),
    Budget("tiny", "kingpole shared", 32, "rate_ratio", 2.0),
    Budget("image", "kingpole", 8, "cpu_ratio", 0.6),
    Budget("numbers", "kingpole", 8, "cpu_ratio", 0.2),
)
MOSEC_RATE_RATIO = 2.0

_FIELD_NAMES = {"rate_ratio": "req/s", "cpu_ratio": "CPU per request", "p50_ratio": "p50"}


def judge(rows: Sequence[Row], results: Results) -> list[Verdict]:
    """Judge every budget."""
    by_cell = {(row.workload, row.peer, row.in_flight): row for row in rows}
    verdicts = []
    for budget in AGAINST_TRITON:
        row = by_cell.get((budget.workload, budget.peer, budget.in_flight))
        ratio: Spread | None = None if row is None else getattr(row, budget.field)
        cell = f"{budget.workload}, {budget.peer}, {budget.in_flight} in flight"
        verdicts.append(
            Verdict(
                f"{cell}: {_FIELD_NAMES[budget.field]}",
                f"{'>=' if budget.at_least else '<='} {budget.limit:g}x Triton",
                "not measured" if ratio is None else f"{ratio.show(2)}x",
                None if ratio is None else budget.met(ratio.median),
            )
        )
    verdicts.append(_against_mosec(results))
    ready = [start.ready_us for start in results.starts if start.peer == "kingpole"]
    verdicts.append(_below("start to ready", ready, START_TO_READY_US, 1e6, "s"))
    rss = [] if results.empty_rss_bytes is None else [results.empty_rss_bytes]
    verdicts.append(_below("memory of the server without a framework", rss, EMPTY_RSS_BYTES, 1e6, "MB"))
    for idle in (one for one in results.idle if one.peer == "kingpole"):
        verdicts.append(
            _below(
                f"{idle.connections:,} idle connections",
                [idle.added_bytes],
                IDLE_CONNECTIONS_BYTES,
                1e6,
                "MB",
            )
        )
        share = idle.cpu_us_without / idle.cpu_us_with
        verdicts.append(
            Verdict(
                f"requests per CPU second beside {idle.connections:,} idle connections",
                f">= {IDLE_THROUGHPUT_SHARE:g}x",
                f"{share:.2f}x",
                share >= IDLE_THROUGHPUT_SHARE,
            )
        )
    scaling = results.scaling
    verdicts.append(
        Verdict(
            "two reactors on two cores, the generator's share subtracted",
            f">= {SCALING:g}x one",
            "not measured" if scaling is None else f"{scaling:.2f}x",
            None if scaling is None else scaling >= SCALING,
        )
    )
    return verdicts


def _against_mosec(results: Results) -> Verdict:
    what, limit = "tiny, kingpole, 32 in flight: req/s", f">= {MOSEC_RATE_RATIO:g}x mosec's raw bytes"
    cells = {(row.workload, row.peer, row.in_flight): row for row in summarize(results.measurements, "mosec")}
    row = cells.get(("tiny", "kingpole", 32))
    if row is None or row.rate_ratio is None:
        return Verdict(what, limit, "not measured", None)
    return Verdict(what, limit, f"{row.rate_ratio.show(2)}x", row.rate_ratio.median >= MOSEC_RATE_RATIO)


def _below(what: str, values: Sequence[int], limit: int, unit: float, unit_name: str) -> Verdict:
    shown = f"< {limit / unit:g} {unit_name}"
    if not values:
        return Verdict(what, shown, "not measured", None)
    spread = Spread.of([value / unit for value in values])
    return Verdict(what, shown, f"{spread.show(2)} {unit_name}", spread.median < limit / unit)
