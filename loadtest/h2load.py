"""h2load: its command line, and what its output and its log mean.

h2load counts a gRPC error as a success (the HTTP status is 200 all the same), so the
bytes it received are part of what is parsed here and `Loaded.body_bytes_each` must be
checked against a verified answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 4

_REQUESTS = re.compile(
    r"requests: \d+ total, \d+ started, (?P<done>\d+) done, (?P<succeeded>\d+) succeeded, "
    r"(?P<failed>\d+) failed, (?P<errored>\d+) errored, (?P<timeout>\d+) timeout"
)
_DATA_BYTES = re.compile(r"\((?P<bytes>\d+)\) data")
_FINISHED = re.compile(r"finished in (?P<value>[\d.]+)(?P<unit>us|ms|s|m|h)\b, (?P<rate>[\d.]+) req/s")
_UNIT_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}


class OutputError(ValueError):
    """h2load's output does not have the lines it should have."""


@dataclass(frozen=True)
class Loaded:
    """One run of h2load.

    Invariant: `latencies_us` is ascending and holds one entry per request that ended
    with status 200.
    """

    succeeded: int
    failed: int
    elapsed_us: int
    rate: float
    body_bytes: int
    latencies_us: list[int]

    @property
    def body_bytes_each(self) -> float:
        """Mean bytes of the response bodies, gRPC prefixes included."""
        return self.body_bytes / max(1, self.succeeded)


def grpc_command(
    url: str, body: Path, in_flight: int, duration_s: int, log: Path | None, connections: int = CONNECTIONS
) -> list[str]:
    """Build the command that keeps `in_flight` gRPC requests outstanding for `duration_s` seconds."""
    connections = min(connections, in_flight)
    return [
        *_command(connections, in_flight // connections, body, duration_s, log),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        url,
    ]


def http1_command(
    url: str, body: Path, in_flight: int, duration_s: int, log: Path | None, content_type: str
) -> list[str]:
    """Build the command for HTTP/1.1: one connection per request in flight."""
    return [
        *_command(in_flight, 1, body, duration_s, log),
        *("--h1", "-H", f"content-type: {content_type}"),
        url,
    ]


def _command(connections: int, streams: int, body: Path, duration_s: int, log: Path | None) -> list[str]:
    command = [
        "h2load",
        "-t",
        "1",
        "-c",
        str(connections),
        "-m",
        str(streams),
        "-D",
        str(duration_s),
        "-d",
        str(body),
    ]
    return command if log is None else [*command, f"--log-file={log}"]


def parse(output: str, log_lines: Sequence[str]) -> Loaded:
    """Read h2load's summary and its log.

    Raises:
        OutputError: A line of the summary is missing.
    """
    requests, finished = _REQUESTS.search(output), _FINISHED.search(output)
    data = _DATA_BYTES.search(output)
    if requests is None or finished is None or data is None:
        raise OutputError(f"not a summary of h2load: {output[-400:]!r}")
    latencies_us: list[int] = []
    refused = 0
    for line in log_lines:
        columns = line.split("\t")
        if len(columns) != 3:
            continue  # h2load may be cut off inside its last line
        if columns[1] == "200":
            latencies_us.append(int(columns[2]))
        else:
            refused += 1
    latencies_us.sort()
    return Loaded(
        succeeded=int(requests["succeeded"]),
        failed=int(requests["failed"]) + int(requests["errored"]) + int(requests["timeout"]) + refused,
        elapsed_us=int(float(finished["value"]) * _UNIT_US[finished["unit"]]),
        rate=float(finished["rate"]),
        body_bytes=int(data["bytes"]),
        latencies_us=latencies_us,
    )
