"""Writes what this client makes of the golden vectors' requests. The one part that looks inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kingpole_client import Sequence
from kingpole_client._arrays import DATATYPES, BFloat16, decode_tensor
from kingpole_client._messages import InferRequest


def encode_vectors(directory: Path, out: Path) -> int:
    """Write `out/NAME.bin` for each request; returns how many."""
    written = 0
    for path in sorted(directory.glob("frame-request-*.json")):
        vector = json.loads(path.read_text(encoding="utf-8"))
        message = vector.get("value", {}).get("message", {})
        if "error" in vector or message.get("shared") or message.get("places"):
            continue
        made = _request(message["request"]).buffers(vector["value"]["exchange"])
        (out / f"{path.stem}.bin").write_bytes(b"".join(made))
        written += 1
    return written


def _request(said: dict[str, Any]) -> InferRequest:
    inputs = {tensor["name"]: _tensor(tensor) for tensor in said["inputs"]}
    return InferRequest(
        said["model"], inputs, outputs=[output["name"] for output in said["outputs"]],
        version=said["version"], id=said["id"],
        parameters={parameter["name"]: parameter["value"] for parameter in said["parameters"]},
        timeout_us=said["timeout_us"], priority=said["priority"],
        sequence=Sequence(**said["sequence"]) if "sequence" in said else None,
    )  # fmt: skip


def _tensor(said: dict[str, Any]) -> Any:
    number, data = DATATYPES.index(said["datatype"]), memoryview(bytes.fromhex(said["data_hex"]))
    if said["datatype"] == "BF16":
        bits = decode_tensor(said["name"], DATATYPES.index("UINT16"), tuple(said["shape"]), data)
        return BFloat16(bits)
    return decode_tensor(said["name"], number, tuple(said["shape"]), data)
