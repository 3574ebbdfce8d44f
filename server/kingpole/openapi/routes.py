"""What a route is: its path, what it takes, what it answers, and on which port. The routes are in `table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Port = Literal["main", "management"]
Method = Literal["get", "post", "put", "delete"]

JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
FRAME = "application/x-kingpole"
FRAMES = "application/x-kingpole-stream"
EVENTS = "text/event-stream"
SAGEMAKER_BINARY = "application/vnd.sagemaker-triton.binary+json"
BYTES = object()
"""Stands for a body that is no JSON."""

Bodies = Mapping[str, Any]
"""The type of a body by its media type."""


class AnyOf(tuple[type, ...]):
    """Stands for a body that is of one of these types."""

    __slots__ = ()

    def __new__(cls, *types: type) -> AnyOf:
        """Take the types one by one."""
        return super().__new__(cls, types)


@dataclass(frozen=True)
class Answer:
    """One status: what it means, its bodies, and the headers that may come with it.

    One that many routes share has a name of its own in the document.
    """

    description: str
    bodies: Bodies = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One path and what can be asked of it; `operation` is its name for generators and for handlers."""

    path: str
    methods: tuple[Method, ...]
    operation: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    request: Bodies | None = None
    is_request_required: bool = True
    headers: tuple[str, ...] = ()
    port: Port = "main"


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "Inference-Header-Content-Length": (
        {"type": "integer", "minimum": 0},
        "How many bytes of the body are JSON; binary tensors follow. In a request, 0: the whole body is the"
        " only input's bytes.",
    ),
    "kingpole-timeout-us": (
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "How long the request may take, in microseconds; 0 has passed already. The shorter of this and the"
        " body's timeout counts.",
    ),
    "kingpole-timing": ({"type": "string"}, "Present: the answer says in Server-Timing how it was served."),
    "Server-Timing": (
        {"type": "string"},
        "Time in the queue and in execution, and the batch; when asked for.",
    ),
    "Retry-After": ({"type": "string"}, "Seconds after which to try again."),
    "X-Amzn-SageMaker-Target-Model": (
        {"type": "string"},
        "The model's name, before the one in the path; `.tar.gz` behind it is dropped.",
    ),
    "x-amzn-errortype": ({"type": "string"}, "What AWS's clients call the error."),
    "Accept-Encoding": ({"type": "string"}, "The content codings that are understood."),
    "Content-Encoding": (
        {"enum": ["gzip", "deflate", "zstd"]},
        "How the body is compressed, as Accept-Encoding asked.",
    ),
    "Vary": (
        {"const": "accept-encoding"},
        "The answer is long enough to be compressed when that is asked for.",
    ),
}


def errors(kind: Bodies, *statuses: int) -> dict[int, Answer]:
    """The answers to what failed, as every route that can give them gives them."""
    retry = ("Retry-After",)
    known = {
        400: Answer("The request is wrong; the text names what, what was expected and what came.", kind),
        403: Answer("Sent by a browser's page, or for another host.", kind),
        404: Answer("There is no such model or version.", kind),
        409: Answer("Loading failed, for the reason given.", kind),
        406: Answer("Accept-Encoding allows neither gzip, deflate or zstd nor a plain answer.", kind),
        413: Answer("The body is larger than the server takes.", kind),
        415: Answer("The content coding is not gzip, deflate, zstd or none.", kind, ("Accept-Encoding",)),
        429: Answer("Refused before it was queued: safe to send again.", kind, retry),
        499: Answer("The client left before its request was complete.", kind),
        500: Answer("The model failed.", kind),
        501: Answer("Known to the protocol and not offered here.", kind),
        503: Answer("Not ready, draining, or the model's worker went away.", kind, retry),
        504: Answer("The timeout passed, or could not have been met.", kind),
    }
    prefix = {(JSON,): "Error", (TEXT,): "Text", (FRAME,): "Frame", (JSON, TEXT): "Either"}[tuple(kind)]
    return {status: replace(known[status], name=f"{prefix}{status}") for status in statuses}
