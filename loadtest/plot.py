"""The plot of a run: one panel per measure, one line per server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from loadtest.cells import Row
from loadtest.percentiles import Spread

_COLORS = {"kingpole": "#c2410c", "kingpole shared": "#f59e0b", "triton": "#4d7c0f", "mosec": "#2563eb"}
_PANELS = (
    ("rate", "requests per second", 1.0),
    ("cpu_us", "CPU µs per request", 1.0),
    ("p50_us", "p50 ms", 1e-3),
    ("p99_us", "p99 ms", 1e-3),
)


def draw(rows: Sequence[Row], title: str, file: Path) -> None:
    """Draw the rows of one workload over the requests in flight; bars show the least and greatest round."""
    peers = list(dict.fromkeys(row.peer for row in rows))
    figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(16, 4.2), layout="constrained")
    for axis, (field, label, scale) in zip(axes, _PANELS, strict=True):
        for peer in peers:
            own = sorted((row for row in rows if row.peer == peer), key=lambda row: row.in_flight)
            spreads: list[Spread] = [getattr(row, field) for row in own]
            middle = [spread.median * scale for spread in spreads]
            below = [(spread.median - spread.least) * scale for spread in spreads]
            above = [(spread.greatest - spread.median) * scale for spread in spreads]
            in_flight = [row.in_flight for row in own]
            axis.errorbar(
                in_flight,
                middle,
                yerr=[below, above],
                marker="o",
                capsize=3,
                label=peer,
                color=_COLORS.get(peer),
            )
        ticks = sorted({row.in_flight for row in rows})
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_ylim(bottom=0)
        axis.set_xlabel("requests in flight")
        axis.set_title(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
