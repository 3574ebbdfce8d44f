"""Runs the conformance programs of clients against the real server and prints one table.

    protocol/conformance/run [LANGUAGE ...] [--case NAME] [--transport NAME] [--require] [--json FILE]

README.md beside this file is the contract.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from protocol.conformance.cases import CASES, NO_TRANSPORT, TRANSPORTS, Case, Surroundings
from protocol.conformance.programs import NOT_APPLICABLE, Outcome, State, failed, run_program
from protocol.conformance.report import Result, as_json, table
from protocol.conformance.servers import ROOT, ServerFailedError

CLIENTS = ROOT / "clients"
_TOOLCHAIN_LIMIT_S = 60.0
_SETUP_LIMIT_S = 1200.0


def languages(clients: Path) -> list[str]:
    """List the clients that have the common entry."""
    return sorted(path.parent.name for path in clients.glob("*/run"))


class LanguageRun:
    """All cases of one client, one after another."""

    def __init__(
        self,
        program: Path,
        cases: Sequence[Case],
        transports: Sequence[str],
        say: Callable[[Result], None],
        tries: int = 1,
    ) -> None:
        self._program, self._language = program, program.parent.name
        self._cases, self._transports, self._say, self._tries = cases, transports, say, tries

    def results(self) -> list[Result]:
        """Run what there is to run; a failure of the machinery is a failure of the cases."""
        started = time.monotonic()
        absent = self._prepare()
        if absent is None:
            try:
                kinds = self._kinds()
                with Surroundings(self._program) as around:
                    return [self._result(around, *each) for each in self._planned(kinds)]
            except (ServerFailedError, ValueError) as error:
                absent = failed(str(error))
        seconds = time.monotonic() - started
        results = [Result(self._language, case.name, "", absent) for case in self._cases]
        self._say(Result(self._language, "setup", "", absent, seconds))
        return results

    def _prepare(self) -> Outcome | None:
        toolchain = run_program([self._program, "toolchain"], _TOOLCHAIN_LIMIT_S)
        if toolchain.status == NOT_APPLICABLE:
            return Outcome(State.NO_TOOLCHAIN, " ".join(toolchain.lines[-3:]).strip() or "it names nothing")
        for step, ended in (("toolchain", toolchain), ("setup", None)):
            ended = ended or run_program([self._program, step], _SETUP_LIMIT_S)
            if ended.status != 0:
                return failed(f"run {step}: {ended.outcome().reason}")
        return None

    def _kinds(self) -> dict[str, list[str]]:
        """Ask for the client's transports: for each of the four, the prefixes of its kinds.

        Raises:
            ValueError: It names something else.
        """
        ended = run_program([self._program, "conformance", "transports"], _TOOLCHAIN_LIMIT_S)
        names = ended.lines[-1].split() if ended.status == 0 and ended.lines else []
        if not names:
            raise ValueError(f"run conformance transports: {ended.outcome().reason or 'it names none'}")
        kinds: dict[str, list[str]] = {NO_TRANSPORT: [""]}
        for name in names:
            prefix, dash, transport = name.rpartition("-")
            if transport not in TRANSPORTS:
                raise ValueError(f"run conformance transports: '{name}' is none of {' '.join(TRANSPORTS)}")
            kinds.setdefault(transport, []).append(prefix + dash)
        return kinds

    def _planned(self, kinds: dict[str, list[str]]) -> Iterator[tuple[Case, str, str]]:
        for case in self._cases:
            for transport in case.transports:
                if self._transports and transport not in (*self._transports, NO_TRANSPORT):
                    continue
                if transport not in kinds and len(case.transports) == 1:
                    yield case, "", transport
                for kind in kinds.get(transport, ()):
                    yield case, kind, transport

    def _result(self, around: Surroundings, case: Case, kind: str, transport: str) -> Result:
        started = time.monotonic()
        outcome = self._outcome(around, case, kind, transport)
        for _ in range(1, self._tries):
            if outcome.state is not State.FAILED:
                break
            again = self._outcome(around, case, kind, transport)
            first = outcome.reason.splitlines()[-1:]
            outcome = (
                again if again.reason else Outcome(again.state, f"only when tried again: {' '.join(first)}")
            )
        result = Result(self._language, case.name, kind + transport, outcome, time.monotonic() - started)
        self._say(result)
        return result

    def _outcome(self, around: Surroundings, case: Case, kind: str, transport: str) -> Outcome:
        try:
            return case.check(around, kind, transport)
        except (ServerFailedError, OSError, RuntimeError) as error:
            return failed(f"the runner could not go on: {error}")


def run_all(
    clients: Path,
    chosen: Sequence[str],
    cases: Sequence[Case],
    transports: Sequence[str],
    say: Callable[[Result], None],
    tries: int = 1,
) -> list[Result]:
    """Run languages side by side, as many as there are cores; results are in the languages' order."""
    runs = [LanguageRun(clients / name / "run", cases, transports, say, tries) for name in chosen]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [result for results in pool.map(LanguageRun.results, runs) for result in results]


def _say(result: Result) -> None:
    words = (result.language, result.transport, result.case)
    said = " ".join(word for word in words if word and word != NO_TRANSPORT)
    print(f"{said}: {result.outcome.state.value} ({result.seconds:.1f} s)", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None, clients: Path = CLIENTS) -> int:
    """Run the conformance tests; 1 when something failed, 2 when a client was asked for that is not there."""
    there = languages(clients)
    parser = argparse.ArgumentParser(
        prog="protocol/conformance/run", description="Conformance of the clients."
    )
    parser.add_argument(
        "languages", nargs="*", metavar="LANGUAGE", help=f"of {', '.join(there)}; all if none"
    )
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--transport", action="append", choices=TRANSPORTS, metavar="NAME", help=", ".join(TRANSPORTS)
    )
    parser.add_argument("--require", action="store_true", help="a missing toolchain is a failure too")
    parser.add_argument(
        "--tries", type=int, default=1, metavar="N", help="how often a failing case is tried (and told of)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every outcome")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.languages if name not in there]
    if unknown:
        print(f"no client {', '.join(unknown)}: there are {', '.join(there) or 'none'}", file=sys.stderr)
        return 2
    chosen = list(dict.fromkeys(options.languages)) or there
    cases = [case for case in CASES if not options.case or case.name in options.case]
    started = time.monotonic()
    results = run_all(clients, chosen, cases, options.transport or (), _say, options.tries)
    print(table(results, [case.name for case in cases], chosen))
    print(f"\n{len(results)} runs of {len(chosen)} clients in {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(as_json(results, {"command": " ".join(sys.argv[1:])}))
    bad = {State.FAILED, State.NO_TOOLCHAIN} if options.require else {State.FAILED}
    return int(any(result.outcome.state in bad for result in results))


if __name__ == "__main__":
    sys.exit(main())
