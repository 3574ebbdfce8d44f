"""An open-loop gRPC load generator: requests leave when the schedule says, not when answers come.

A closed loop stops asking while the server stalls and so samples the stall once
(coordinated omission). Here every latency counts from the time the request was MEANT to
leave, and the generator reports its own lag: a run whose sends were late says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest import arrivals
from loadtest.http2 import UNANSWERED, Http2Connection
from loadtest.percentiles import percentile

LATE_US = 1_000
SATURATED_SHARE = 0.01
_SETTLE_TIMEOUT_S = 10.0
_IDLE_WAIT_S = 0.05
_READ_BYTES = 1 << 18


class GeneratorError(RuntimeError):
    """The run could not begin."""


@dataclass
class Sent:
    """One request: when it was meant to leave, left and ended (µs from the start), and how."""

    intended_us: int
    sent_us: int = -1
    done_us: int = -1
    status: int = UNANSWERED
    body_bytes: int = 0


@dataclass(frozen=True)
class Summary:
    """One open-loop run. Latencies are of the answered requests, from their intended send time."""

    requests: int
    answered: int
    failed: int
    rate: float
    p50_us: int
    p99_us: int
    max_us: int
    late: int
    worst_lag_us: int
    saturated: bool


def summarize(requests: Sequence[Sent], body_bytes: int | None) -> Summary:
    """Summarise a run; with `body_bytes`, an answer of another size counts as failed.

    Raises:
        ValueError: No request was answered.
    """
    answered = [one for one in requests if one.status == 0 and body_bytes in (None, one.body_bytes)]
    latencies_us = sorted(one.done_us - one.intended_us for one in answered)
    lags_us = [one.sent_us - one.intended_us for one in requests if one.sent_us >= 0]
    late = sum(lag > LATE_US for lag in lags_us) + sum(one.sent_us < 0 for one in requests)
    span_us = max(one.done_us for one in answered) if answered else 1
    return Summary(
        requests=len(requests),
        answered=len(answered),
        failed=len(requests) - len(answered),
        rate=len(answered) / span_us * 1e6,
        p50_us=percentile(latencies_us, 0.5),
        p99_us=percentile(latencies_us, 0.99),
        max_us=latencies_us[-1],
        late=late,
        worst_lag_us=max(lags_us, default=0),
        saturated=late > SATURATED_SHARE * len(requests),
    )


class _Line:
    """A connection and its socket."""

    def __init__(self, address: tuple[str, int], connection: Http2Connection) -> None:
        self.connection = connection
        self.socket = socket.create_connection(address, timeout=_SETTLE_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not connection.settled:
            self.socket.sendall(connection.outgoing()[0])
            connection.outgoing()[0].clear()
            data = self.socket.recv(_READ_BYTES)
            if not data:
                raise GeneratorError("the server closed the connection before it acknowledged our settings")
            connection.receive(data)
        self.socket.setblocking(False)


def run(url: str, body: bytes, schedule_us: Sequence[int], connections: int, drain_us: int) -> list[Sent]:
    """Send one request per entry of the schedule and wait up to `drain_us` for the last answers.

    Args:
        url: http://host:port/path of a unary gRPC method.
        body: The request, with gRPC's prefix.
        schedule_us: Intended send times, ascending.
        connections: Requests go to them in turn.
        drain_us: How long to wait after the last intended send.

    Raises:
        GeneratorError: The server does not speak HTTP/2.
        OSError: It cannot be reached.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    lines = [_Line(address, Http2Connection(parts.netloc, parts.path, body)) for _ in range(connections)]
    requests = [Sent(at_us) for at_us in schedule_us]
    try:
        _drive(lines, requests, drain_us)
    finally:
        for line in lines:
            line.socket.close()
    return requests


def _drive(lines: list[_Line], requests: list[Sent], drain_us: int) -> None:
    start_ns = time.monotonic_ns()
    open_lines = list(lines)
    submitted = ended = 0
    deadline_us = (requests[-1].intended_us if requests else 0) + drain_us
    while ended < len(requests) and open_lines:
        now_us = (time.monotonic_ns() - start_ns) // 1_000
        if now_us > deadline_us:
            return
        while submitted < len(requests) and requests[submitted].intended_us <= now_us:
            open_lines[submitted % len(open_lines)].connection.submit(submitted)
            submitted += 1
        writing = [line for line in open_lines if _write(line, requests, start_ns)]
        due_us = requests[submitted].intended_us if submitted < len(requests) else deadline_us + 1
        now_us = (time.monotonic_ns() - start_ns) // 1_000
        # select and not epoll: its timeout has microseconds, not milliseconds.
        wait_s = min(max(0, due_us - now_us) / 1e6, _IDLE_WAIT_S)
        readable, _, _ = select.select(
            [line.socket for line in open_lines], [line.socket for line in writing], [], wait_s
        )
        for line in list(open_lines):
            if line.socket in readable:
                count, alive = _read(line, requests, start_ns)
                ended += count
                if not alive:
                    open_lines.remove(line)


def _write(line: _Line, requests: list[Sent], start_ns: int) -> bool:
    """Write what may be written; true when the socket would not take all of it."""
    buffer, complete = line.connection.outgoing()
    if complete:
        now_us = (time.monotonic_ns() - start_ns) // 1_000
        for number in complete:
            requests[number].sent_us = now_us
    if buffer:
        try:
            del buffer[: line.socket.send(buffer)]
        except BlockingIOError:
            pass  # the socket is full; select tells when it is not
        except OSError:
            buffer.clear()  # the connection is gone; reading it tells
    return bool(buffer)


def _read(line: _Line, requests: list[Sent], start_ns: int) -> tuple[int, bool]:
    """Read what is there and note the answers; how many there were, and whether the connection lives."""
    try:
        data = line.socket.recv(_READ_BYTES)
    except BlockingIOError:
        return 0, True
    except OSError:
        data = b""
    now_us = (time.monotonic_ns() - start_ns) // 1_000
    answers = line.connection.receive(data) if data else line.connection.lose()
    for answer in answers:
        request = requests[answer.request]
        request.done_us, request.status, request.body_bytes = now_us, answer.status, answer.body_bytes
    return len(answers), bool(data)


def write_csv(file: Path, requests: Sequence[Sent]) -> None:
    """Write one line per request."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("intended_us", "sent_us", "done_us", "grpc_status", "body_bytes"))
        writer.writerows(
            (one.intended_us, one.sent_us, one.done_us, one.status, one.body_bytes) for one in requests
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one schedule against a URL and print the summary as JSON."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.openloop", description=__doc__)
    parser.add_argument("url", help="http://host:port/package.Service/Method")
    parser.add_argument("--body", type=Path, required=True, help="request file with gRPC's 5-byte prefix")
    parser.add_argument("--rate", type=float, required=True, help="mean requests per second")
    parser.add_argument("--duration", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument(
        "--burstiness", type=float, default=1.0, help="coefficient of variation of the gaps; 1: Poisson"
    )
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write one line per request here")
    options = parser.parse_args(arguments)
    schedule_us = arrivals.gamma(options.rate, options.burstiness, int(options.duration * 1e6), options.seed)
    requests = run(
        options.url, options.body.read_bytes(), schedule_us, options.connections, drain_us=5_000_000
    )
    if options.csv:
        write_csv(options.csv, requests)
    summary = summarize(requests, body_bytes=None)
    print(json.dumps(asdict(summary), indent=2))
    if summary.saturated:
        print("generator saturated: the latencies above include its own lag", file=sys.stderr)
        return 3
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
