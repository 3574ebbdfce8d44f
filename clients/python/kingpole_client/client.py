"""The client whose calls block. Safe to share between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kingpole_client import _messages, _rest
from kingpole_client._address import Address, parse_address
from kingpole_client._clock import now_us, wait_deadline_us
from kingpole_client._exchanges import Pending, one_response, resolve
from kingpole_client._frame import DEFAULT_MAX_FRAME_BYTES, MAGIC, MEDIA_TYPE, split_frame
from kingpole_client._http import HttpAnswer, HttpPool, Recall
from kingpole_client._http_parts import NOT_FRAMES, HttpSource
from kingpole_client._messages import Answer, Buffers, InferRequest
from kingpole_client._open_inference import OpenInference, choose, decode, refuses_frames
from kingpole_client._parts import ONLY_EXCHANGE, ResponseStream, SocketSource, Source
from kingpole_client._shared_memory import NOT_SHARED, parse_bytes
from kingpole_client._stream import Begun, StreamTransport
from kingpole_client._trust import tls_context
from kingpole_client._values import (
    InferResponse,
    ModelMetadata,
    ModelState,
    Parameter,
    Sequence,
    ServerMetadata,
)
from kingpole_client.errors import Internal, InvalidArgument, KingpoleError, Unavailable, Unimplemented

if TYPE_CHECKING:
    import ssl

    import numpy.typing as npt

    from kingpole_client._grpc import GrpcTransport

T = TypeVar("T")
INFER_PATH = "/v1/infer"
FRAME_HEADERS = {"Content-Type": MEDIA_TYPE}
JSON_HEADERS = {"Content-Type": "application/json"}
# Asking who is there needs no model and must not wait for ever.
ASK_TIMEOUT_US = 10_000_000


class Transport(Protocol):
    """What carries frames on a stream."""

    def start(
        self, make: Callable[[int], Buffers], deadline_us: int | None, *, is_request: bool = False
    ) -> Begun:
        """Send a request; returns its future and how to give it up."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def expect(answer: Answer, kind: type[T]) -> T:
    """Return an answer that is of the kind asked for.

    Raises:
        KingpoleError: The answer is an error, or of another kind.
    """
    if isinstance(answer, KingpoleError):
        raise answer
    if not isinstance(answer, kind):
        raise Internal(f"the server answered with {type(answer).__name__}, not with {kind.__name__}")
    return answer


def read_infer_answer(answer: HttpAnswer, limit: int) -> Answer:
    """Read the body of `POST /v1/infer`: a frame, whatever the status, unless something in between spoke."""
    is_frame = (
        answer.headers.get("content-type", "").startswith(MEDIA_TYPE) or bytes(answer.body[:8]) == MAGIC
    )
    if is_frame:
        return one_response(_messages.decode_answer(split_frame(answer.body, limit)))
    if answer.status == 200:
        raise Internal("the server answered with something else than a frame")
    return _rest.error_of_answer(answer.status, answer.headers, bytes(answer.body[:8192]))


def check_token(token: str | None, address: Address) -> None:
    """Refuse a token that cannot travel.

    Raises:
        InvalidArgument: The transport has no place for it, or it could not stand in a header.
    """
    if token is None:
        return
    if address.scheme in ("frame", "unix"):
        raise InvalidArgument(f"a token cannot travel over {address}: use http, https, grpc or grpcs")
    if not token.isascii() or not token.isprintable():
        raise InvalidArgument("the token has characters that cannot stand in a header")


def shared_bytes_of(shared_memory: int | str | None, address: Address) -> int:
    """Return how much memory to share, 0 for none.

    Raises:
        InvalidArgument: It is no size, or the transport cannot share.
    """
    shared_bytes = 0 if shared_memory is None else parse_bytes(shared_memory)
    if shared_bytes and address.scheme != "unix":
        raise InvalidArgument(f"memory is shared over Unix sockets only, not over {address}")
    return shared_bytes


class Client:
    """A connection to one server. Make it with `kingpole_client.connect`.

    Nothing is sent twice: a request whose connection breaks fails with `Unavailable`, and it is the
    caller who knows whether to ask again. Idle connections that the server has closed are replaced
    before anything is written to them. The one exception is the first request over HTTP to a server that
    knows no frames: it refused that one unread, and is asked again in Open Inference.
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
        self._http = HttpPool(address, token, tls_context(address, tls, root_certificates), max_frame_bytes)
        self._tls = tls
        self._frames: Transport | None = None
        self._open_inference: OpenInference | None = None
        self._stream: StreamTransport | None = None
        self._grpc: GrpcTransport | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if address.scheme in ("frame", "unix"):
            self._stream = StreamTransport(address, tls, max_frame_bytes, shared_bytes)
            self._frames = self._stream
        elif address.scheme in ("grpc", "grpcs"):
            try:
                from kingpole_client._grpc import GrpcTransport
            except ImportError as error:
                raise Unimplemented(
                    f"{url} needs grpcio: pip install 'kingpole-client[grpc]' ({error})"
                ) from None
            self._grpc = GrpcTransport(address, token, root_certificates, max_frame_bytes)
            self._frames = self._grpc

    def __repr__(self) -> str:
        return f"<Client {self._address}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. What waits is answered `Cancelled`."""
        if self._frames is not None:
            self._frames.close()
        self._http.close()
        if self._executor is not None:
            self._executor.shutdown(wait=True)

    def infer(
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
        """Ask a model for an inference and wait for the answer.

        Args:
            model: The model's name; empty asks for the server's default model.
            inputs: Arrays by input name. Contiguous ones are sent from where they are.
            outputs: Names of the outputs wanted, in that order; None asks for all.
            version: None asks for the latest ready one.
            id: Echoed in the response.
            parameters: Passed to the model.
            timeout_us: Travels with the request and bounds the wait here. None: the client's own.
            priority: 0 is the default, 1 the highest.
            sequence: Where the request stands in a sequence that a stateful model keeps together.

        Raises:
            KingpoleError: A subclass by code, with the server's text.
        """
        request = self._request(
            model, inputs, outputs, version, id, parameters, timeout_us, priority, sequence
        )
        return expect(self._infer(request, wait_deadline_us(request.timeout_us)), InferResponse)

    def submit(
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
    ) -> Pending[InferResponse]:
        """Ask for an inference without waiting: like `infer`, but returns the answer that will come.

        The arrays must not change before the answer is there.
        """
        request = self._request(
            model, inputs, outputs, version, id, parameters, timeout_us, priority, sequence
        )
        return self._submit(request)

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
    ) -> ResponseStream:
        """Ask for an inference that may be answered by any number of responses; they come as they are made.

        Arguments are those of `infer`. The request is on its way when this returns, over a connection or
        call of its own: responses that are not taken hold up the model that makes them, and nothing else.
        Closing the stream, also by leaving its `with`, tells the model to make no more.

        Raises:
            KingpoleError: A subclass by code, here or between two responses.
        """
        request = self._request(
            model, inputs, outputs, version, id, parameters, timeout_us, priority, sequence
        )
        return ResponseStream(self._open(request, wait_deadline_us(request.timeout_us)))

    def infer_many(
        self, model: str, requests: Iterable[Mapping[str, Any]], *, in_flight: int = 64, **options: Any
    ) -> Iterator[InferResponse]:
        """Ask for many inferences, up to `in_flight` at a time; yields the responses in the requests' order.

        Args:
            model: As in `infer`.
            requests: The inputs of each request; read as responses are taken.
            in_flight: How many may wait for their answer at once.
            **options: As in `infer`, for every request.
        """
        if in_flight < 1:
            raise InvalidArgument(f"in_flight is {in_flight}, it must be at least 1")
        from collections import deque

        waiting: deque[Pending[InferResponse]] = deque()
        try:
            for inputs in requests:
                waiting.append(self.submit(model, inputs, **options))
                if len(waiting) >= in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for pending in waiting:
                pending.cancel()

    def empty(self, shape: tuple[int, ...] | int, dtype: Any) -> npt.NDArray[Any]:
        """Return an array in the memory shared with the server, its elements not set.

        Sent as an input it is not copied. It must not be written to between `submit` and the answer. When the
        last reference to it is gone, its memory is used again. If the connection is replaced, it stays usable
        and is copied like any other array.

        Raises:
            InvalidArgument: The client was made without `shared_memory`.
            ResourceExhausted: There is no room.
        """
        if self._stream is None:
            raise InvalidArgument(NOT_SHARED)
        return self._stream.memory().empty(shape, dtype)

    def live(self) -> bool:
        """Return whether the server answers at all."""
        try:
            if self._frames is None:
                return _rest.read_ready(*self._rest(_rest.ask_live()))
            self.metadata()
        except Unavailable:
            return False
        return True

    def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """Return whether a model, or without one the server, is ready to infer.

        Raises:
            NotFound: No such model or version.
        """
        if self._frames is None:
            return _rest.read_ready(*self._rest(_rest.ask_ready(model, version)))
        try:
            return expect(self._ask_frame(lambda e: _messages.encode_ready_request(model, version, e)), bool)
        except Unavailable:
            return False

    def metadata(self, model: str | None = None, version: str | None = None) -> Any:
        """Return a model's `ModelMetadata`, or without a model the server's `ServerMetadata`.

        Raises:
            NotFound: No such model or version.
        """
        if self._frames is None:
            answer = self._rest(_rest.ask_metadata(model, version))
            return _rest.read_model_metadata(*answer) if model else _rest.read_server_metadata(*answer)
        if not model:
            return expect(self._ask_frame(_messages.encode_server_info_request), ServerMetadata)
        return expect(
            self._ask_frame(lambda e: _messages.encode_metadata_request(model, version, e)), ModelMetadata
        )

    def models(self) -> list[ModelState]:
        """Return the repository's index: every model and version the server knows, and its state."""
        if self._grpc is not None:
            return self._grpc.models(now_us() + ASK_TIMEOUT_US)
        return _rest.read_models(*self._rest(_rest.ask_models()))

    def _request(
        self,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str] | None,
        version: str | None,
        id_: str | None,
        parameters: Mapping[str, Parameter] | None,
        timeout_us: int | None,
        priority: int,
        sequence: Sequence | None,
    ) -> InferRequest:
        if timeout_us is None:
            timeout_us = self._timeout_us
        return InferRequest(
            model, inputs, outputs=outputs, version=version, id=id_, parameters=parameters,
            timeout_us=timeout_us, priority=priority, sequence=sequence,
        )  # fmt: skip

    def _open(self, request: InferRequest, deadline_us: int | None) -> Source:
        if self._grpc is not None:
            return self._grpc.open(request.buffers, deadline_us)
        if self._frames is not None:
            return SocketSource(self._address, self._tls, self._limit, request.buffers, deadline_us)
        if self._open_inference is not None:
            raise Unimplemented(NOT_FRAMES)
        buffers = request.buffers(ONLY_EXCHANGE)
        return HttpSource(self._http, INFER_PATH, buffers, deadline_us, self._limit)

    def _infer(self, request: InferRequest, deadline_us: int | None) -> Answer:
        if self._frames is not None:
            return self._ask(request, deadline_us, is_request=True)
        return self._infer_over_http(request, deadline_us, None)

    def _infer_over_http(
        self, request: InferRequest, deadline_us: int | None, recall: Recall | None
    ) -> Answer:
        if self._open_inference is None:
            buffers = request.buffers(ONLY_EXCHANGE)
            answer = self._http.exchange("POST", INFER_PATH, FRAME_HEADERS, buffers, deadline_us, recall)
            if not refuses_frames(answer):
                return read_infer_answer(answer, self._limit)
            self._open_inference = choose(*self._rest(_rest.ask_metadata(None, None)))
        asked = self._open_inference.encode(request)
        buffers = asked.buffers
        return decode(self._http.exchange("POST", asked.path, asked.headers, buffers, deadline_us, recall))

    def _ask(
        self, make: Callable[[int], Buffers], deadline_us: int | None, *, is_request: bool = False
    ) -> Answer:
        assert self._frames is not None
        future, give_up = self._frames.start(make, deadline_us, is_request=is_request)
        return Pending[Answer](future, lambda answer: answer, deadline_us, give_up).result()

    def _ask_frame(self, make: Callable[[int], Buffers]) -> Answer:
        return self._ask(make, now_us() + ASK_TIMEOUT_US)

    def _submit(self, request: InferRequest) -> Pending[InferResponse]:
        deadline_us = wait_deadline_us(request.timeout_us)
        if self._frames is not None:
            future, give_up = self._frames.start(request, deadline_us, is_request=True)
        else:
            future, give_up = self._submit_over_http(request, deadline_us)
        return Pending(future, lambda answer: expect(answer, InferResponse), deadline_us, give_up)

    def _submit_over_http(self, request: InferRequest, deadline_us: int | None) -> Begun:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(64, thread_name_prefix="kingpole submit")
        future: Future[Answer] = Future()
        recall = Recall()

        def ask() -> None:
            try:
                # The answer's deadline is kept by the socket's timeouts.
                answer = self._infer_over_http(request, deadline_us, recall)
            except KingpoleError as error:
                answer = error
            except BaseException as error:
                # Whoever waits has to learn of a fault of ours, too.
                resolve(future, Internal(f"{type(error).__name__}: {error}"))
                raise
            resolve(future, answer)

        self._executor.submit(ask)
        return future, recall.withdraw

    def _rest(self, request: _rest.RestRequest) -> tuple[int, dict[str, str], bytes]:
        body = [request.body] if request.body else []
        deadline_us = now_us() + ASK_TIMEOUT_US
        answer = self._http.exchange(request.method, request.path, JSON_HEADERS, body, deadline_us)
        return answer.status, answer.headers, bytes(answer.body)
