"""What every test of bad input ends with: the server still answers, and has not grown."""

from __future__ import annotations

import json

from running import Running
from served import mlp, rows
from wire import as_json, json_request, post

# The limit of a body several times over, and what an allocator keeps.
GROWTH_BYTES = 64 << 20


def check_well(server: Running) -> None:
    """Demand a right answer to a good request, on a connection of its own."""
    assert server.process.poll() is None, "the server ended:\n" + "\n".join(server.log)
    address = server.host, server.port
    for model in ("mlp", "mlp-worker"):
        answer = post(address, f"/v2/models/{model}/infer", as_json(json_request(rows(2))))
        assert answer.status == 200, answer.text
        assert json.loads(answer.text)["outputs"][0]["data"] == mlp(rows(2)).flatten().tolist()
