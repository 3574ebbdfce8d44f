"""What clients encode, decoded by the codecs of Rust and of Python, which must read what the vectors say.

Knows how the values of vectors are written, and neither servers nor transports.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kingpole_client import KingpoleError, _messages
from kingpole_client._arrays import DATATYPES
from kingpole_client._flatbuffer import Table
from kingpole_client._frame import Frame, split_frame
from kingpole_client._generated import kingpole_generated as fb

ROOT = Path(__file__).resolve().parents[2]
_BUILD_LIMIT_S = 1800.0
_MOST_PROBLEMS = 8
# Cargo would make them wait for each other anyway.
_cargo = threading.Lock()


def wanted(directory: Path) -> dict[str, Any]:
    """Return the values that a client encodes, by the name of their vector.

    Those whose tensors are in shared memory are left out: where they lie is for the client to say.
    """
    values = {}
    for path in sorted(directory.glob("frame-request-*.json")):
        vector = json.loads(path.read_text())
        message = vector.get("value", {}).get("message", {})
        if "error" not in vector and not message.get("shared") and not message.get("places"):
            values[path.stem] = vector["value"]
    return values


def check_encodings(directory: Path, out: Path) -> list[str]:
    """Compare what a client wrote with the vectors; returns what differs."""
    values = wanted(directory)
    problems = [f"{name}.bin is not there" for name in values if not (out / f"{name}.bin").is_file()]
    if problems:
        return problems[:_MOST_PROBLEMS]
    in_rust = decoded_by_rust(out)
    for name, value in values.items():
        expected = comparable(value)
        for codec, read in (("Rust", in_rust[name]), ("Python", decoded_by_python(out / f"{name}.bin"))):
            found = comparable(read) if "message" in read else read
            if found != expected:
                problems.append(
                    f"{name}: the {codec} codec reads {_short(found)}, expected {_short(expected)}"
                )
    return problems[:_MOST_PROBLEMS]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) < 1500 else f"{text[:1500]}..."


def comparable(value: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a client need not say: the parameters of outputs, and in which order parameters come."""
    request = dict(value["message"]["request"])
    request["outputs"] = [output["name"] for output in request["outputs"]]
    request["parameters"] = sorted(request["parameters"], key=lambda parameter: str(parameter["name"]))
    return {"exchange": value["exchange"], "request": request}


def decoded_by_rust(out: Path) -> dict[str, Any]:
    """Read every file of a folder with kingpole-wire."""
    command = ["cargo", "run", "--quiet", "--package", "kingpole-wire", "--example", "decode", "--", str(out)]
    with _cargo:
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_BUILD_LIMIT_S, check=False
        )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}: {ended.stderr[-1000:]}")
    decoded: dict[str, Any] = json.loads(ended.stdout)
    return decoded


def decoded_by_python(path: Path) -> dict[str, Any]:
    """Read one file with the Python client's codec."""
    try:
        frame = split_frame(memoryview(path.read_bytes()))
        return {"exchange": _messages.exchange_of(frame), "message": {"request": _request(frame)}}
    except KingpoleError as error:
        return {"error": {"code": error.code, "message": error.message}}


def _request(frame: Frame) -> dict[str, Any]:
    kind, table = frame.header.uint8(0), frame.header.table(1)
    if kind != fb.Message.Request or table is None:
        return {"outputs": [], "parameters": [], "kind": kind}
    request: dict[str, Any] = {
        "model": table.string(0) or "",
        "version": table.string(1),
        "id": table.string(2),
        "timeout_us": table.uint64(3) or None,
        "priority": table.uint32(4),
        "inputs": [_tensor(tensor, frame.payloads) for tensor in table.tables(5)],
        "outputs": [{"name": output.string(0) or ""} for output in table.tables(6)],
        "parameters": [_parameter(parameter) for parameter in table.tables(7)],
    }
    if identity := table.uint64(8) or table.string(9):
        request["sequence"] = {
            "id": identity, "start": table.uint8(10) != 0, "end": table.uint8(11) != 0,
        }  # fmt: skip
    return request


def _tensor(tensor: Table, payloads: list[memoryview]) -> dict[str, Any]:
    payload, offset, nbytes = tensor.uint32(4), tensor.uint64(5), tensor.uint64(6)
    data = bytes(payloads[payload][offset : offset + nbytes]) if payload < len(payloads) else b""
    return {
        "name": tensor.string(0) or "", "datatype": DATATYPES[tensor.uint8(1)],
        "shape": list(tensor.int64s(2)), "data_hex": data.hex(),
    }  # fmt: skip


def _parameter(table: Table) -> dict[str, Any]:
    kinds: dict[int, tuple[str, Any]] = {
        fb.ParameterKind.BOOL: ("bool", table.uint8(2) != 0),
        fb.ParameterKind.INT64: ("int64", table.int64(3)),
        fb.ParameterKind.UINT64: ("uint64", table.uint64(4)),
        fb.ParameterKind.DOUBLE: ("double", table.float64(5)),
        fb.ParameterKind.STRING: ("string", table.string(6) or ""),
    }
    kind, value = kinds.get(table.uint8(1), ("none", None))
    return {"name": table.string(0) or "", "kind": kind, "value": value}
