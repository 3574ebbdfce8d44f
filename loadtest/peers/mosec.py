"""mosec: a Rust front before Python processes; raw float32 bytes in and out, no envelope."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

from loadtest.models import MAX_BATCH_SIZE, BenchModel
from loadtest.peers.peer import PEER_DIRECTORY, Batches, Transport
from loadtest.processes import Launch, free_port

_WAIT_MS = 1
_METRIC = re.compile(r"^mosec_service_batch_size_(sum|count)\{([^}]*)\} ([\d.eE+]+)$", re.MULTILINE)


class Mosec:
    """mosec with batches of up to 32 and the shortest wait it takes."""

    name = "mosec"

    def __init__(self) -> None:
        self._environment = PEER_DIRECTORY / "mosec"
        self._port = 0

    def missing(self) -> str | None:
        """Name what must be installed first."""
        if (self._environment / "ready").exists():
            return None
        return "mosec is not set up; run: sh loadtest/peers/setup.sh"

    def transport(self, wanted: Transport) -> Transport | None:
        """Raw bytes in place of gRPC; nothing in place of JSON."""
        return None if wanted == "json" else "raw"

    def launch(self, model: BenchModel, directory: Path) -> Launch:
        """Start mosec on the model file itself."""
        self._port = free_port()
        command = [
            str(self._environment / "venv" / "bin" / "python"),
            str(Path(__file__).parent / "services" / "mosec_service.py"),
            *("--address", "127.0.0.1", "--port", str(self._port), "--timeout", "30000"),
            *("--max-body-size", str(64 << 20)),
        ]
        environment = {
            "BENCH_MODEL": str(model.file),
            "BENCH_SHAPE": ",".join(str(dimension) for dimension in model.input_shape),
            "BENCH_MAX_BATCH_SIZE": str(MAX_BATCH_SIZE),
            "BENCH_WAIT_MS": str(_WAIT_MS),
            "PYTHONPATH": "",
        }
        return Launch(command, environment, self._port, "/metrics")

    def url(self, model: BenchModel, transport: Transport) -> str:
        """Tell where requests go."""
        return f"http://127.0.0.1:{self._port}/inference"

    def batches(self, model: BenchModel) -> Batches | None:
        """Read the batch size histogram of its metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return parse_batches(connection.getresponse().read().decode())
        finally:
            connection.close()


def parse_batches(metrics: str) -> Batches | None:
    """Read the sum and count of mosec's batch size histogram; None before the first batch."""
    totals = {"sum": 0.0, "count": 0.0}
    for kind, labels, value in _METRIC.findall(metrics):
        if 'connection="inbound"' not in labels:
            totals[kind] += float(value)
    return Batches(totals["sum"], totals["count"]) if totals["count"] else None
