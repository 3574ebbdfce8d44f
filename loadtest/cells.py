"""What is measured: workloads, one cell of one round, and the summary over rounds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.openloop import Summary
from loadtest.peers.peer import Transport
from loadtest.percentiles import Spread


@dataclass(frozen=True)
class Workload:
    """A model asked in one way at several numbers of requests in flight."""

    title: str
    model: str
    transport: Transport
    in_flight: tuple[int, ...]
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One cell in one round. Invariant: every answer counted was of the right size."""

    workload: str
    peer: str
    in_flight: int
    round: int
    rate: float
    p50_us: int
    p99_us: int
    cpu_us: float
    mean_batch: float | None
    rss_bytes: int
    server_core_share: float

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Start:
    """One start of a server with one model: until it says it is ready, and until its first right answer."""

    workload: str
    peer: str
    round: int
    ready_us: int
    answer_us: int
    rss_bytes: int


@dataclass(frozen=True)
class Row:
    """A cell over its rounds, with ratios to the reference peer of the same rounds (None: not there)."""

    workload: str
    peer: str
    in_flight: int
    rate: Spread
    p50_us: Spread
    p99_us: Spread
    cpu_us: Spread
    core_share: float
    mean_batch: float | None
    rss_bytes: float
    rate_ratio: Spread | None
    p50_ratio: Spread | None
    cpu_ratio: Spread | None


@dataclass(frozen=True)
class OpenLoopMeasurement:
    """One open-loop run of one peer; latencies count from the intended send time."""

    peer: str
    arrivals: str
    offered_rate: float
    round: int
    summary: Summary


@dataclass(frozen=True)
class IdleMeasurement:
    """What idle connections did to a server."""

    peer: str
    connections: int
    added_bytes: int
    rate_without: float
    rate_with: float
    cpu_us_without: float
    cpu_us_with: float


@dataclass(frozen=True)
class Results:
    """Everything one run measured."""

    measurements: list[Measurement]
    starts: list[Start]
    open_loop: list[OpenLoopMeasurement]
    idle: list[IdleMeasurement]
    empty_rss_bytes: int | None
    scaling: float | None


def _ratios(own: Sequence[Measurement], others: Sequence[Measurement], field: str) -> Spread | None:
    """Divide round by round, so that a machine that slows down for a round slows both sides of a ratio."""
    by_round = {other.round: float(getattr(other, field)) for other in others}
    ratios = [
        float(getattr(one, field)) / by_round[one.round] for one in own if by_round.get(one.round, 0.0) > 0.0
    ]
    return Spread.of(ratios) if ratios else None


def summarize(measurements: Sequence[Measurement], reference: str) -> list[Row]:
    """Join the rounds of each cell, in the order the cells were first measured."""
    cells: dict[tuple[str, str, int], list[Measurement]] = {}
    for measurement in measurements:
        cells.setdefault((measurement.workload, measurement.peer, measurement.in_flight), []).append(
            measurement
        )
    rows = []
    for (workload, peer, in_flight), own in cells.items():
        others = cells.get((workload, reference, in_flight), [])
        batches = [one.mean_batch for one in own if one.mean_batch is not None]
        rows.append(
            Row(
                workload=workload,
                peer=peer,
                in_flight=in_flight,
                rate=Spread.of([one.rate for one in own]),
                p50_us=Spread.of([one.p50_us for one in own]),
                p99_us=Spread.of([one.p99_us for one in own]),
                cpu_us=Spread.of([one.cpu_us for one in own]),
                core_share=Spread.of([one.server_core_share for one in own]).median,
                mean_batch=Spread.of(batches).median if batches else None,
                rss_bytes=Spread.of([one.rss_bytes for one in own]).median,
                rate_ratio=_ratios(own, others, "rate"),
                p50_ratio=_ratios(own, others, "p50_us"),
                cpu_ratio=_ratios(own, others, "cpu_us"),
            )
        )
    return rows
