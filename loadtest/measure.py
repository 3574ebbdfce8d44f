"""Measures one running server: a cell of closed-loop load, an open-loop run, idle connections."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtest import arrivals, h2load, openloop
from loadtest.cells import IdleMeasurement, Measurement, OpenLoopMeasurement, Workload
from loadtest.idle import idle_connections
from loadtest.models import Array, BenchModel
from loadtest.peers.peer import Batches, Peer
from loadtest.percentiles import percentile
from loadtest.processes import RunningServer, tree_cpu_us, tree_rss_bytes
from loadtest.verify import CONTENT_TYPES, Question, check_body_bytes, verified_body_bytes

# h2load writes its log with one system call per request: memory, not a disk.
_MEMORY_DIRECTORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_DRAIN_US = 5_000_000
_OPEN_LOOP_CONNECTIONS = 4


class LoadError(RuntimeError):
    """The load generator failed, or requests did."""


@dataclass(frozen=True)
class Timing:
    """How long each part takes, in whole seconds, and how many rounds there are."""

    warm_up_s: int
    seconds: int
    rounds: int


@dataclass(frozen=True)
class Subject:
    """A running server with the question it will be asked and the right answer."""

    server: RunningServer
    peer: Peer
    model: BenchModel
    question: Question
    url: str
    reference: Array

    def verified_body_bytes(self) -> int:
        """Ask once and check the answer; the size of a right one on the wire."""
        self.server.check_alive()
        return verified_body_bytes(self.url, self.question, self.reference)


def load(
    subject: Subject, in_flight: int, seconds: int, logged: bool, connections: int = h2load.CONNECTIONS
) -> h2load.Loaded:
    """Keep `in_flight` requests outstanding for some seconds.

    Raises:
        LoadError: h2load failed or a request did.
    """
    with tempfile.TemporaryDirectory(dir=_MEMORY_DIRECTORY) as directory:
        body = Path(directory) / "body"
        body.write_bytes(subject.question.body)
        log = Path(directory) / "log"
        log.touch()
        kept = log if logged else None
        if subject.question.transport == "grpc":
            command = h2load.grpc_command(subject.url, body, in_flight, seconds, kept, connections)
        else:
            content_type = CONTENT_TYPES[subject.question.transport]
            command = h2load.http1_command(subject.url, body, in_flight, seconds, kept, content_type)
        try:
            output = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + 60, check=True
            ).stdout
        except subprocess.SubprocessError as error:
            raise LoadError(f"{' '.join(command)}: {error}") from error
        loaded = h2load.parse(output, log.read_text().splitlines())
    if loaded.failed or not loaded.succeeded:
        raise LoadError(f"{loaded.failed} requests failed, {loaded.succeeded} succeeded: {' '.join(command)}")
    return loaded


def _mean_batch(before: Batches | None, after: Batches | None) -> float | None:
    executions = 0.0 if after is None else after.executions - (before.executions if before else 0.0)
    if after is None or not executions:
        return None
    return (after.rows - (before.rows if before else 0.0)) / executions


def measure_cell(
    subject: Subject, workload: Workload, in_flight: int, timing: Timing, round_: int
) -> Measurement:
    """Warm up, load and measure; answers are verified before and after, and by their size in between.

    Raises:
        LoadError: A request failed.
        WrongAnswerError: An answer was not the model's output.
    """
    expected = subject.verified_body_bytes()
    load(subject, in_flight, timing.warm_up_s, logged=False)
    pid = subject.server.pid
    batches, cpu_us = subject.peer.batches(subject.model), tree_cpu_us(pid)
    loaded = load(subject, in_flight, timing.seconds, logged=True)
    used_us = tree_cpu_us(pid) - cpu_us
    rss_bytes = tree_rss_bytes(pid)
    mean_batch = _mean_batch(batches, subject.peer.batches(subject.model))
    check_body_bytes(loaded.body_bytes, loaded.succeeded, expected, in_flight)
    subject.verified_body_bytes()
    return Measurement(
        workload=workload.model,
        peer=subject.peer.name,
        in_flight=in_flight,
        round=round_,
        rate=loaded.succeeded / loaded.elapsed_us * 1e6,
        p50_us=percentile(loaded.latencies_us, 0.5),
        p99_us=percentile(loaded.latencies_us, 0.99),
        cpu_us=used_us / loaded.succeeded,
        mean_batch=mean_batch,
        rss_bytes=rss_bytes,
        server_core_share=used_us / loaded.elapsed_us,
    )


def measure_open_loop(
    subject: Subject, rate: float, burstiness: float, timing: Timing, round_: int
) -> OpenLoopMeasurement:
    """Send requests on a schedule that every peer of the round gets alike."""
    expected = subject.verified_body_bytes()
    schedule_us = arrivals.gamma(rate, burstiness, timing.seconds * 1_000_000, seed=round_)
    requests = openloop.run(
        subject.url, subject.question.body, schedule_us, _OPEN_LOOP_CONNECTIONS, _DRAIN_US
    )
    if not any(one.status == 0 for one in requests):
        raise LoadError(f"no request of the open loop at {rate:,.0f} req/s was answered")
    title = "Poisson" if burstiness == 1 else f"Gamma, coefficient of variation {burstiness:g}"
    return OpenLoopMeasurement(subject.peer.name, title, rate, round_, openloop.summarize(requests, expected))


def _loaded_cpu_us(subject: Subject, in_flight: int, timing: Timing) -> tuple[float, float]:
    """Load once, after warming up; the rate and the CPU time per request."""
    load(subject, in_flight, timing.warm_up_s, logged=False)
    before = tree_cpu_us(subject.server.pid)
    loaded = load(subject, in_flight, timing.seconds, logged=False)
    return loaded.rate, (tree_cpu_us(subject.server.pid) - before) / loaded.succeeded


def measure_idle(subject: Subject, port: int, connections: int, timing: Timing) -> IdleMeasurement:
    """Hold idle connections beside a load of 32 in flight."""
    rate_without, cpu_us_without = _loaded_cpu_us(subject, 32, timing)
    before = tree_rss_bytes(subject.server.pid)
    with idle_connections(port, connections):
        added = tree_rss_bytes(subject.server.pid) - before
        rate_with, cpu_us_with = _loaded_cpu_us(subject, 32, timing)
        subject.verified_body_bytes()
    return IdleMeasurement(
        subject.peer.name, connections, added, rate_without, rate_with, cpu_us_without, cpu_us_with
    )
