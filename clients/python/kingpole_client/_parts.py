"""A request that is answered by any number of responses. Each has a connection or call of its own.

So whoever takes responses slowly holds up nothing but the model that makes them: unread bytes stay where
the server can see that they do.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Protocol

from kingpole_client._address import Address
from kingpole_client._clock import GRACE_US, now_us, seconds_left
from kingpole_client._frame import Frame, FrameAssembler
from kingpole_client._messages import Answer, Buffers, decode_answer, encode_cancel
from kingpole_client._socket import open_socket, send_buffers
from kingpole_client._values import Credit, InferResponse
from kingpole_client.errors import DeadlineExceeded, Internal, KingpoleError, Unavailable

STREAM_MEDIA_TYPE = "application/x-kingpole-stream"
ONLY_EXCHANGE = 1
_READ_BYTES = 64 * 1024


class Source(Protocol):
    """Where the frames of one answer come from."""

    def next(self) -> Frame:
        """Wait for the next frame."""
        ...

    def close(self, *, ended: bool) -> None:
        """Let go of it; before the answer has ended this cancels the request."""
        ...


def decoded(frame: Frame) -> Answer:
    """Decode a frame; an error is returned like any other answer."""
    try:
        return decode_answer(frame)
    except KingpoleError as error:
        return error


def part_of(answer: Answer) -> tuple[InferResponse | None, bool]:
    """Return the response that an answer gives, if it gives one, and whether it is the last.

    Raises:
        KingpoleError: The answer is an error, or no answer to a request.
    """
    if isinstance(answer, Credit):
        return None, False
    if isinstance(answer, KingpoleError):
        raise answer
    if not isinstance(answer, InferResponse):
        raise Internal(f"the server answered with {type(answer).__name__}, not with InferResponse")
    if answer.stage == "end":
        return None, True
    return answer, answer.stage == "only"


class ResponseStream:
    """The responses to one request, as they come. Closing it before the last one cancels the request.

    It is an iterator, and a context manager that closes it. An error ends it; the responses before it stay
    good, and nothing is ever given twice.
    """

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._last = False

    def __iter__(self) -> ResponseStream:
        return self

    def __next__(self) -> InferResponse:
        while self._source is not None:
            if self._last:
                self._end(ended=True)
                break
            try:
                response, self._last = part_of(decoded(self._source.next()))
            except BaseException:
                self._end(ended=False)
                raise
            if response is not None:
                return response
        raise StopIteration

    def _end(self, *, ended: bool) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close(ended=ended)

    def close(self) -> None:
        """Take no more responses; the model is told to make no more."""
        self._end(ended=self._last)

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class SocketSource:
    """Frames on a socket of their own."""

    def __init__(
        self,
        address: Address,
        tls: ssl.SSLContext | None,
        limit: int,
        make: Callable[[int], Buffers],
        deadline_us: int | None,
    ) -> None:
        self._name, self._deadline_us = str(address), deadline_us
        self._assembler = FrameAssembler(limit)
        self._frames: list[Frame] = []
        buffers = make(ONLY_EXCHANGE)
        self._socket = open_socket(address, deadline_us, tls)
        try:
            send_buffers(self._socket, buffers, deadline_us)
        except TimeoutError:
            self._socket.close()
            raise DeadlineExceeded(f"{self._name} did not take the request in time") from None
        except OSError as error:
            self._socket.close()
            raise Unavailable(f"the connection to {self._name} broke: {error}") from None

    def next(self) -> Frame:
        """Wait for the next frame."""
        while not self._frames:
            try:
                self._socket.settimeout(seconds_left(self._deadline_us))
                received = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                raise DeadlineExceeded(f"no answer came from {self._name} in time") from None
            except OSError as error:
                raise Unavailable(f"the connection to {self._name} broke: {error}") from None
            if not received:
                raise Unavailable(f"{self._name} closed the connection within its answer")
            self._frames = self._assembler.feed(memoryview(received))
        return self._frames.pop(0)

    def close(self, *, ended: bool) -> None:
        """Close the socket; a server need not have answered to hear that nobody wants it to."""
        if not ended:
            with contextlib.suppress(OSError, KingpoleError):
                send_buffers(self._socket, encode_cancel(ONLY_EXCHANGE), now_us() + GRACE_US)
        self._socket.close()
