"""The report of a run: a page of Markdown and the numbers as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from loadtest.budgets import Verdict, judge
from loadtest.cells import Results, Row, Start, Workload, summarize
from loadtest.peers.triton import CPU_FACTOR_OF_CPP_BACKEND
from loadtest.percentiles import Spread

REFERENCE = "triton"

_MARKS = {True: "yes", False: "**no**", None: "-"}


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def _ratio(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.show(2)}x"


def _cpp_ratio(row: Row) -> str:
    # The factor was measured with the tiny model; where the model itself costs, backends differ less.
    if row.cpu_ratio is None or row.workload != "tiny":
        return "-"
    return f"{row.cpu_ratio.median * CPU_FACTOR_OF_CPP_BACKEND:.2f}x"


def _cell(row: Row) -> list[str]:
    return [
        str(row.in_flight),
        row.peer,
        row.rate.show(),
        row.p50_us.show(),
        row.p99_us.show(),
        row.cpu_us.show(1),
        f"{row.core_share:.0%}",
        "-" if row.mean_batch is None else f"{row.mean_batch:.1f}",
        f"{row.rss_bytes / 1e6:.0f}",
        _ratio(row.rate_ratio),
        _ratio(row.p50_ratio),
        _ratio(row.cpu_ratio),
        _cpp_ratio(row),
    ]


def _starts(starts: Sequence[Start]) -> list[str]:
    cells: dict[tuple[str, str], list[Start]] = {}
    for start in starts:
        cells.setdefault((start.workload, start.peer), []).append(start)
    lines = [
        [
            workload,
            peer,
            Spread.of([one.ready_us / 1e6 for one in own]).show(2),
            Spread.of([one.answer_us / 1e6 for one in own]).show(2),
            Spread.of([one.rss_bytes / 1e6 for one in own]).show(),
        ]
        for (workload, peer), own in cells.items()
    ]
    return _table(("workload", "server", "ready s", "first right answer s", "memory MB"), lines)


def _open_loop(results: Results) -> list[str]:
    lines = [
        [
            one.arrivals,
            f"{one.offered_rate:,.0f}",
            one.peer,
            f"{one.summary.rate:,.0f}",
            f"{one.summary.p50_us:,}",
            f"{one.summary.p99_us:,}",
            f"{one.summary.max_us:,}",
            str(one.summary.failed),
            f"{one.summary.late} of {one.summary.requests}"
            + (" **saturated**" if one.summary.saturated else ""),
        ]
        for one in results.open_loop
    ]
    return _table(
        (
            "arrivals",
            "offered req/s",
            "server",
            "answered req/s",
            "p50 µs",
            "p99 µs",
            "max µs",
            "failed",
            "sent late",
        ),
        lines,
    )


def _verdicts(verdicts: Sequence[Verdict]) -> list[str]:
    lines = [[verdict.what, verdict.limit, verdict.measured, _MARKS[verdict.met]] for verdict in verdicts]
    return _table(("budget", "limit", "measured", "met"), lines)


def markdown(
    environment: Mapping[str, str], workloads: Sequence[Workload], results: Results, problems: Sequence[str]
) -> str:
    """Write the page.

    Args:
        environment: Where and how the run was made, shown first.
        workloads: In the order they are shown.
        results: What was measured.
        problems: Cells that could not be measured, each with its reason.
    """
    rows = summarize(results.measurements, REFERENCE)
    lines = ["# Load test", ""]
    lines += [f"- {key}: {value}" for key, value in environment.items()]
    lines += [
        "",
        "Each value is the median of the rounds (least-greatest). Ratios are to Triton in the same round;",
        f'"C++" is the ratio to a Triton whose ONNX Runtime backend is C++ ({CPU_FACTOR_OF_CPP_BACKEND}x',
        "less CPU, an estimate). CPU is that of the server's whole process tree, core its share of one core;",
        "memory counts shared pages once. Latencies of the first tables are closed loop.",
    ]
    heads = (
        *("in flight", "server", "req/s", "p50 µs", "p99 µs", "CPU µs/req", "core", "batch", "MB"),
        *("req/s ratio", "p50 ratio", "CPU ratio", "CPU ratio C++"),
    )
    for workload in workloads:
        own = sorted(
            (row for row in rows if row.workload == workload.model),
            key=lambda row: (row.in_flight, workload.peers.index(row.peer)),
        )
        if own:
            lines += ["", f"## {workload.title}", "", *_table(heads, [_cell(row) for row in own])]
    if results.open_loop:
        lines += ["", "## Open loop, latency from the intended send time", "", *_open_loop(results)]
    if results.starts:
        lines += ["", "## Start", "", *_starts(results.starts)]
    if results.idle:
        lines += ["", "## Idle connections", ""]
        lines += _table(
            ("server", "connections", "added MB", "req/s without", "with", "CPU µs/req without", "with"),
            [
                [
                    one.peer,
                    f"{one.connections:,}",
                    f"{one.added_bytes / 1e6:.1f}",
                    f"{one.rate_without:,.0f}",
                    f"{one.rate_with:,.0f}",
                    f"{one.cpu_us_without:.1f}",
                    f"{one.cpu_us_with:.1f}",
                ]
                for one in results.idle
            ],
        )
    lines += ["", "## Budgets", "", *_verdicts(judge(rows, results))]
    if problems:
        lines += ["", "## Not measured", "", *(f"- {problem}" for problem in problems)]
    return "\n".join(lines) + "\n"


def as_json(environment: Mapping[str, str], results: Results, problems: Sequence[str]) -> str:
    """Write every measurement of every round as JSON."""
    return (
        json.dumps(
            {"environment": dict(environment), **asdict(results), "problems": list(problems)}, indent=1
        )
        + "\n"
    )
