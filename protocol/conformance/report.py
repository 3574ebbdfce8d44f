"""The table of a run, and its reasons. Outcomes in, text out: knows neither programs nor servers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol.conformance.programs import Outcome, State


@dataclass(frozen=True)
class Result:
    """One case, run with one client over one transport. An empty transport means all of them."""

    language: str
    case: str
    transport: str
    outcome: Outcome
    seconds: float = 0.0


def cell(results: Sequence[Result]) -> str:
    """Say how one case went with one client: what failed first, then what passed."""
    states = {result.outcome.state for result in results}
    if State.FAILED in states:
        where = " ".join(r.transport for r in results if r.outcome.state is State.FAILED and r.transport)
        return f"FAILED {where}".rstrip()
    for state in (State.OK, State.NO_TOOLCHAIN):
        if state in states:
            return str(state.value)
    return str(State.NOT_APPLICABLE.value) if results else ""


def table(results: Sequence[Result], cases: Sequence[str], languages: Sequence[str]) -> str:
    """Write the table and, below it, every reason."""
    rows = [["case", *languages]]
    for case in cases:
        of_case = [result for result in results if result.case == case]
        rows.append([case, *(cell([r for r in of_case if r.language == name]) for name in languages)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *reasons(results)])


def reasons(results: Sequence[Result]) -> list[str]:
    """List why something did not apply or took more tries, shortly; then why something failed, in full."""
    short: dict[tuple[str, str, str], list[str]] = {}
    long: list[str] = []
    for result in results:
        outcome = result.outcome
        if outcome.state is not State.FAILED and outcome.reason:
            short.setdefault((result.language, result.case, outcome.reason), []).append(result.transport)
        elif outcome.state is State.FAILED:
            title = " ".join(word for word in (result.language, result.transport, result.case) if word)
            long += ["", f"{title} FAILED:", *(f"    {line}" for line in outcome.reason.splitlines())]
    lines = [
        f"{language} {case}{'' if not any(transports) else ' (' + ' '.join(transports) + ')'}: {reason}"
        for (language, case, reason), transports in short.items()
    ]
    return [*(["", *lines] if lines else []), *long]


def as_json(results: Sequence[Result], environment: Mapping[str, str]) -> str:
    """Write every outcome as JSON."""
    rows = [
        {
            "language": result.language, "case": result.case, "transport": result.transport,
            "state": result.outcome.state.name.lower(), "reason": result.outcome.reason,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    ]  # fmt: skip
    return json.dumps({**environment, "results": rows}, indent=1, ensure_ascii=False) + "\n"
