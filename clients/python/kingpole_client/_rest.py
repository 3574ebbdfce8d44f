"""The calls that travel as Open Inference REST: what to ask, and how to read the answer. Opens no socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from kingpole_client._values import ModelMetadata, ModelState, ServerMetadata, TensorSpec
from kingpole_client.errors import Internal, KingpoleError, NotFound, error_of_http_status


class RestRequest(NamedTuple):
    """A method, a path and a body."""

    method: str
    path: str
    body: bytes = b""


def infer_path(model: str, version: str | None) -> str:
    """Return where a model is asked."""
    return f"{_model_path(model, version)}/infer"


def _model_path(model: str, version: str | None) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def ask_live() -> RestRequest:
    """Ask whether the server lives."""
    return RestRequest("GET", "/v2/health/live")


def ask_ready(model: str | None, version: str | None) -> RestRequest:
    """Ask whether a model, or without one the server, is ready."""
    return RestRequest("GET", _model_path(model, version) + "/ready" if model else "/v2/health/ready")


def ask_metadata(model: str | None, version: str | None) -> RestRequest:
    """Ask what a model takes and gives, or without one who the server is."""
    return RestRequest("GET", _model_path(model, version) if model else "/v2")


def ask_models() -> RestRequest:
    """Ask for the repository's index."""
    return RestRequest("POST", "/v2/repository/index", b"{}")


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> KingpoleError:
    """Make the error of an answer whose status is not 200; the text is the server's, at most 8 KiB of it."""
    text = body[:8192].decode(errors="replace").strip()
    try:
        document = json.loads(text) if text.startswith("{") else {}
        # Servers made with FastAPI say `detail` for what they refuse themselves.
        message = document.get("error") or document.get("detail") or text
    except (ValueError, RecursionError):
        message = text
    retry_after = headers.get("retry-after", "")
    retry_after_ms = (
        int(retry_after) * 1000
        if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9
        else None
    )
    return error_of_http_status(
        status, str(message) or f"HTTP status {status}", retry_after_ms=retry_after_ms
    )


def read_ready(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Read the answer to `ask_ready` or `ask_live`.

    Raises:
        KingpoleError: The server refused to say, or does not know the model.
    """
    if status == 200:
        return True
    error = error_of_answer(status, headers, body)
    # Triton says 400 for a model that is there and not ready.
    if status in (400, 503) and not isinstance(error, NotFound):
        return False
    raise error


def _read_json(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    if status != 200:
        raise error_of_answer(status, headers, body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Internal(f"the server's answer is not JSON: {error}") from None


def read_server_metadata(status: int, headers: Mapping[str, str], body: bytes) -> ServerMetadata:
    """Read who the server is."""
    document = _read_json(status, headers, body)
    try:
        return ServerMetadata(
            str(document["name"]),
            str(document["version"]),
            tuple(str(e) for e in document.get("extensions", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Internal(f"the server's metadata cannot be read: {error!r}") from None


def read_model_metadata(status: int, headers: Mapping[str, str], body: bytes) -> ModelMetadata:
    """Read what a model takes and gives."""
    document = _read_json(status, headers, body)
    try:
        return ModelMetadata(
            str(document["name"]),
            tuple(str(v) for v in document.get("versions") or ()),
            str(document.get("platform", "")),
            _specs(document.get("inputs")),
            _specs(document.get("outputs")),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Internal(f"the model's metadata cannot be read: {error!r}") from None


def _specs(specs: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(str(s["name"]), str(s["datatype"]), tuple(int(size) for size in s["shape"]))
        for s in specs or ()
    )


def read_models(status: int, headers: Mapping[str, str], body: bytes) -> list[ModelState]:
    """Read the repository's index."""
    rows = _read_json(status, headers, body)
    try:
        return [
            ModelState(
                str(r["name"]), r.get("version") or None, str(r.get("state", "")), str(r.get("reason", ""))
            )
            for r in rows
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise Internal(f"the repository's index cannot be read: {error!r}") from None
