"""The rows that clients print, read with suspicion, and the table that is made of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from loadtest.percentiles import Spread

KINGPOLE = "kingpole"
REFERENCES = ("stubs", "floor", "tritonclient")
"""What a client is compared with; the last one runs in a process of its own, in the same round."""

_NUMBERS = ("bytes", "requests", "cpu_us", "p50_us", "p99_us")


class OutputError(ValueError):
    """A client printed something else than its contract says."""


@dataclass(frozen=True)
class Sample:
    """One contender with one size in one round."""

    language: str
    transport: str
    round: int
    contender: str
    bytes: int
    requests: int
    cpu_us: float
    p50_us: float
    p99_us: float


def parse(language: str, transport: str, round_: int, lines: Sequence[str]) -> list[Sample]:
    """Read what `run bench` printed; lines that are no JSON objects are the business of the tools it started.

    Raises:
        OutputError: A row lacks something, or there is none.
    """
    samples = []
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            row = json.loads(line)
            numbers = {name: row[name] for name in _NUMBERS}
            contender = row["contender"]
        except (ValueError, KeyError) as error:
            raise OutputError(f"{language} printed {line[:200]!r}: {error!r}") from None
        if not isinstance(contender, str) or any(
            not isinstance(n, int | float) or n < 0 for n in numbers.values()
        ):
            raise OutputError(f"{language} printed {line[:200]!r}: expected a name and numbers")
        samples.append(Sample(language, transport, round_, contender, **numbers))
    if not samples:
        raise OutputError(f"{language} printed no row over {transport}")
    return samples


def _ratio(samples: Sequence[Sample], own: Sequence[Sample], reference: str) -> str:
    """Compare CPU times round by round; empty if the reference was not there."""
    key = {(s.transport, s.bytes, s.language) for s in own}
    others = {
        s.round: s.cpu_us
        for s in samples
        if s.contender == reference and (s.transport, s.bytes, s.language) in key and s.cpu_us > 0
    }
    ratios = [s.cpu_us / others[s.round] for s in own if s.round in others]
    return Spread.of(ratios).show(2) if ratios else "-"


def markdown(samples: Sequence[Sample]) -> str:
    """Write one table for each transport and size."""
    lines: list[str] = []
    for transport, nbytes in sorted({(s.transport, s.bytes) for s in samples}):
        own = [s for s in samples if (s.transport, s.bytes) == (transport, nbytes)]
        lines += ["", f"## {nbytes:,} bytes over {transport}", ""]
        heads = (
            "language",
            "contender",
            "CPU µs",
            "p50 µs",
            "p99 µs",
            *(f"CPU / {name}" for name in REFERENCES),
        )
        lines += [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
        for language, contender in dict.fromkeys((s.language, s.contender) for s in own):
            of_row = [s for s in own if (s.language, s.contender) == (language, contender)]
            values = [
                Spread.of([getattr(s, name) for s in of_row]).show()
                for name in ("cpu_us", "p50_us", "p99_us")
            ]
            ratios = [_ratio(own, of_row, name) if contender == KINGPOLE else "" for name in REFERENCES]
            lines.append(f"| {' | '.join((language, contender, *values, *ratios))} |")
    return "\n".join(lines) + "\n"


def as_json(environment: Mapping[str, str], samples: Sequence[Sample], problems: Sequence[str]) -> str:
    """Write every sample of every round as JSON."""
    rows = [asdict(sample) for sample in samples]
    return (
        json.dumps({"environment": dict(environment), "samples": rows, "problems": list(problems)}, indent=1)
        + "\n"
    )
