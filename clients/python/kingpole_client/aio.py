"""The client whose calls are awaited. Belongs to the event loop it was first used in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kingpole_client import _messages, _rest
from kingpole_client._address import parse_address
from kingpole_client._aio_http import AsyncHttp
from kingpole_client._aio_parts import AsyncResponseStream, AsyncSocketSource, AsyncSource
from kingpole_client._aio_stream import AsyncStreamTransport
from kingpole_client._clock import now_us, seconds_left, wait_deadline_us
from kingpole_client._frame import DEFAULT_MAX_FRAME_BYTES
from kingpole_client._http_parts import NOT_FRAMES, STREAM_HEADERS
from kingpole_client._messages import Answer, Buffers, InferRequest
from kingpole_client._open_inference import OpenInference, choose, decode, refuses_frames
from kingpole_client._parts import ONLY_EXCHANGE
from kingpole_client._shared_memory import NOT_SHARED
from kingpole_client._trust import tls_context
from kingpole_client._values import (
    InferResponse,
    ModelMetadata,
    ModelState,
    Parameter,
    Sequence,
    ServerMetadata,
)
from kingpole_client.client import (
    ASK_TIMEOUT_US,
    FRAME_HEADERS,
    INFER_PATH,
    JSON_HEADERS,
    check_token,
    expect,
    read_infer_answer,
    shared_bytes_of,
)
from kingpole_client.errors import DeadlineExceeded, InvalidArgument, Unavailable, Unimplemented

if TYPE_CHECKING:
    import ssl

    import numpy.typing as npt

    from kingpole_client._aio_grpc import AsyncGrpcTransport

T = TypeVar("T")


class AsyncTransport(Protocol):
    """What carries frames on a stream."""

    async def ask(self, make: Callable[[int], Buffers], *, is_request: bool = False) -> Answer:
        """Send a request and wait for its answer; a cancelled wait cancels the request."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class AsyncClient:
    """A connection to one server. Make it with `kingpole_client.aconnect`.

    The methods are those of `Client`, awaited; cancelling an awaiting task cancels its request.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_us: int | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        root_certificates: bytes | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        shared_memory: int | str | None = None,
    ) -> None:
        address = parse_address(url)
        check_token(token, address)
        shared_bytes = shared_bytes_of(shared_memory, address)
        self._address, self._limit, self._timeout_us = address, max_frame_bytes, timeout_us
        self._http = AsyncHttp(address, token, tls_context(address, tls, root_certificates), max_frame_bytes)
        self._frames: AsyncTransport | None = None
        self._stream: AsyncStreamTransport | None = None
        self._open_inference: OpenInference | None = None
        self._grpc: AsyncGrpcTransport | None = None
        if address.scheme in ("frame", "unix"):
            self._stream = AsyncStreamTransport(address, max_frame_bytes, shared_bytes)
            self._frames = self._stream
        elif address.scheme in ("grpc", "grpcs"):
            try:
                from kingpole_client._aio_grpc import AsyncGrpcTransport
            except ImportError as error:
                raise Unimplemented(
                    f"{url} needs grpcio: pip install 'kingpole-client[grpc]' ({error})"
                ) from None
            self._grpc = AsyncGrpcTransport(address, token, root_certificates, max_frame_bytes)
            self._frames = self._grpc

    def __repr__(self) -> str:
        return f"<AsyncClient {self._address}>"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. What waits is answered `Cancelled`."""
        if self._frames is not None:
            await self._frames.close()
        await self._http.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Parameter] | None = None,
        timeout_us: int | None = None,
        priority: int = 0,
        sequence: Sequence | None = None,
    ) -> InferResponse:
        """Ask a model for an inference. Arguments and errors are those of `Client.infer`."""
        request = InferRequest(
            model, inputs, outputs=outputs, version=version, id=id, parameters=parameters,
            timeout_us=self._timeout_us if timeout_us is None else timeout_us, priority=priority,
            sequence=sequence,
        )  # fmt: skip
        return expect(
            await self._within(self._infer(request), wait_deadline_us(request.timeout_us)), InferResponse
        )

    def stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Parameter] | None = None,
        timeout_us: int | None = None,
        priority: int = 0,
        sequence: Sequence | None = None,
    ) -> AsyncResponseStream:
        """Ask for any number of responses, to be taken with `async for`. Otherwise as `Client.stream`."""
        request = InferRequest(
            model, inputs, outputs=outputs, version=version, id=id, parameters=parameters,
            timeout_us=self._timeout_us if timeout_us is None else timeout_us, priority=priority,
            sequence=sequence,
        )  # fmt: skip
        deadline_us = wait_deadline_us(request.timeout_us)
        return AsyncResponseStream(str(self._address), lambda: self._open(request), deadline_us)

    async def _open(self, request: InferRequest) -> AsyncSource:
        if self._grpc is not None:
            return self._grpc.open(request.buffers)
        if self._frames is not None:
            return await AsyncSocketSource.open(self._address, self._limit, request.buffers)
        if self._open_inference is not None:
            raise Unimplemented(NOT_FRAMES)
        return await self._http.open(INFER_PATH, STREAM_HEADERS, request.buffers(ONLY_EXCHANGE))

    async def infer_many(
        self, model: str, requests: Iterable[Mapping[str, Any]], *, in_flight: int = 64, **options: Any
    ) -> AsyncIterator[InferResponse]:
        """Ask for many inferences, up to `in_flight` at a time; yields responses in order."""
        if in_flight < 1:
            raise InvalidArgument(f"in_flight is {in_flight}, it must be at least 1")
        from collections import deque

        waiting: deque[asyncio.Task[InferResponse]] = deque()
        try:
            for inputs in requests:
                waiting.append(asyncio.ensure_future(self.infer(model, inputs, **options)))
                if len(waiting) >= in_flight:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for pending in waiting:
                pending.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def empty(self, shape: tuple[int, ...] | int, dtype: Any) -> npt.NDArray[Any]:
        """Return an array in the memory shared with the server; as `Client.empty`."""
        if self._stream is None:
            raise InvalidArgument(NOT_SHARED)
        return (await self._stream.memory()).empty(shape, dtype)

    async def live(self) -> bool:
        """Return whether the server answers at all."""
        try:
            if self._frames is None:
                return _rest.read_ready(*await self._rest(_rest.ask_live()))
            await self.metadata()
        except Unavailable:
            return False
        return True

    async def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """Return whether a model, or without one the server, is ready to infer.

        Raises:
            NotFound: No such model or version.
        """
        if self._frames is None:
            return _rest.read_ready(*await self._rest(_rest.ask_ready(model, version)))
        try:
            return expect(
                await self._ask_frame(lambda e: _messages.encode_ready_request(model, version, e)), bool
            )
        except Unavailable:
            return False

    async def metadata(self, model: str | None = None, version: str | None = None) -> Any:
        """Return a model's `ModelMetadata`, or without a model the server's `ServerMetadata`.

        Raises:
            NotFound: No such model or version.
        """
        if self._frames is None:
            answer = await self._rest(_rest.ask_metadata(model, version))
            return _rest.read_model_metadata(*answer) if model else _rest.read_server_metadata(*answer)
        if not model:
            return expect(await self._ask_frame(_messages.encode_server_info_request), ServerMetadata)
        answer_ = await self._ask_frame(lambda e: _messages.encode_metadata_request(model, version, e))
        return expect(answer_, ModelMetadata)

    async def models(self) -> list[ModelState]:
        """Return the repository's index: every model and version the server knows, and its state."""
        if self._grpc is not None:
            return await self._grpc.models(now_us() + ASK_TIMEOUT_US)
        return _rest.read_models(*await self._rest(_rest.ask_models()))

    async def _within(self, asking: Coroutine[Any, Any, T], deadline_us: int | None) -> T:
        """Wait for an answer until the deadline."""
        try:
            left = seconds_left(deadline_us)
        except DeadlineExceeded:
            asking.close()
            raise
        try:
            return await asyncio.wait_for(asking, left)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"no answer came from {self._address} in time") from None

    async def _infer(self, request: InferRequest) -> Answer:
        if self._frames is not None:
            return await self._frames.ask(request, is_request=True)
        if self._open_inference is None:
            answer = await self._http.exchange("POST", INFER_PATH, FRAME_HEADERS, request.buffers(1))
            if not refuses_frames(answer):
                return read_infer_answer(answer, self._limit)
            self._open_inference = choose(*await self._rest(_rest.ask_metadata(None, None)))
        asked = self._open_inference.encode(request)
        return decode(await self._http.exchange("POST", asked.path, asked.headers, asked.buffers))

    async def _ask_frame(self, make: Callable[[int], Buffers]) -> Answer:
        assert self._frames is not None
        return await self._within(self._frames.ask(make), now_us() + ASK_TIMEOUT_US)

    async def _rest(self, request: _rest.RestRequest) -> tuple[int, dict[str, str], bytes]:
        body: Buffers = [request.body] if request.body else []
        asking = self._http.exchange(request.method, request.path, JSON_HEADERS, body)
        answer = await self._within(asking, now_us() + ASK_TIMEOUT_US)
        return answer.status, answer.headers, bytes(answer.body)


async def aconnect(url: str, **options: Any) -> AsyncClient:
    """Make an `AsyncClient` of the server at `url`; arguments are those of `connect`."""
    return AsyncClient(url, **options)
