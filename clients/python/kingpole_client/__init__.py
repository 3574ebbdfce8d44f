"""The thin Python client of the Kingpole model server: numpy in, numpy out.

    import kingpole_client

    with kingpole_client.connect("http://localhost:8000") as client:
        response = client.infer("digits", {"image": image})
        print(response.outputs["scores"])

Importing this package imports nothing else: names are looked up when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kingpole_client._aio_parts import AsyncResponseStream
    from kingpole_client._arrays import BFloat16
    from kingpole_client._exchanges import Pending
    from kingpole_client._parts import ResponseStream
    from kingpole_client._values import (
        InferResponse,
        ModelMetadata,
        ModelState,
        Sequence,
        ServerMetadata,
        TensorSpec,
        Timing,
    )
    from kingpole_client.aio import AsyncClient
    from kingpole_client.aio import aconnect as aconnect
    from kingpole_client.client import Client
    from kingpole_client.errors import (
        AlreadyExists,
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        KingpoleError,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncResponseStream",
    "BFloat16",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InferResponse",
    "Internal",
    "InvalidArgument",
    "KingpoleError",
    "ModelMetadata",
    "ModelState",
    "NotFound",
    "Pending",
    "PermissionDenied",
    "ResourceExhausted",
    "ResponseStream",
    "Sequence",
    "ServerMetadata",
    "TensorSpec",
    "Timing",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "aconnect",
    "connect",
]

_HOMES = {
    "AsyncClient": "aio",
    "AsyncResponseStream": "_aio_parts",
    "ResponseStream": "_parts",
    "aconnect": "aio",
    "BFloat16": "_arrays",
    "Client": "client",
    "Pending": "_exchanges",
    **dict.fromkeys(
        (
            "InferResponse",
            "ModelMetadata",
            "ModelState",
            "Sequence",
            "ServerMetadata",
            "TensorSpec",
            "Timing",
        ),
        "_values",
    ),
}


def connect(
    url: str,
    *,
    timeout_us: int | None = None,
    token: str | None = None,
    tls: object = None,
    root_certificates: bytes | None = None,
    max_frame_bytes: int = 4 << 30,
    shared_memory: int | str | None = None,
) -> Client:
    """Make a client of the server at `url`. The first connection is opened by the first call.

    Args:
        url: `http://host:port` (also https), `grpc://host:port` (also grpcs; needs the extra `grpc`),
            `frame://host:port` (frames straight over TCP) or `unix:/path`.
        timeout_us: For every inference that names none itself; None waits as long as it takes.
        token: Sent as a bearer token; http and grpc only.
        tls: An `ssl.SSLContext` for https, for instance with a certificate of the client's own.
        root_certificates: PEM of the authorities to trust, for https and grpcs; None: the system's.
        max_frame_bytes: Longer answers are refused before they are received.
        shared_memory: Bytes, or a text such as `64MiB`, of memory to share with the server: tensors then do
            not travel through the socket. `unix:` only, and Linux.

    Raises:
        InvalidArgument: The URL, token or certificates cannot be used.
    """
    from kingpole_client.client import Client

    return Client(
        url, timeout_us=timeout_us, token=token, tls=tls, root_certificates=root_certificates,  # type: ignore[arg-type]
        max_frame_bytes=max_frame_bytes, shared_memory=shared_memory,
    )  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
