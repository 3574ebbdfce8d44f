"""Requests on a stream that wait for their answers. Knows no socket.

Every exchange begun is answered exactly once: by its frame, by the end of its stream, or by being given up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Generic, TypeVar

from kingpole_client._clock import seconds_left
from kingpole_client._frame import Frame
from kingpole_client._messages import Answer, decode_answer, exchange_of
from kingpole_client._values import Credit
from kingpole_client.errors import DeadlineExceeded, KingpoleError

T = TypeVar("T")


class Exchanges:
    """The exchanges of one stream, by number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._last = 0
        self._failure: KingpoleError | None = None

    def begin(self) -> tuple[int, Future[Answer]]:
        """Take the next number.

        Raises:
            KingpoleError: The stream has ended.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._last += 1
            future: Future[Answer] = Future()
            self._waiting[self._last] = future
            return self._last, future

    def give_up(self, exchange: int) -> bool:
        """Forget an exchange; returns whether it was still waiting."""
        with self._lock:
            return self._waiting.pop(exchange, None) is not None

    def answer(self, frame: Frame) -> None:
        """Hand a received frame to whom it belongs.

        Raises:
            KingpoleError: The frame makes no sense and belongs to nobody: the stream cannot go on.
        """
        exchange = exchange_of(frame)
        try:
            answer = decode_answer(frame)
        except KingpoleError as error:
            answer = error
        if isinstance(answer, Credit):
            return
        with self._lock:
            future = self._waiting.pop(exchange, None)
        if future is not None:
            _resolve(future, answer)
        elif exchange == 0 and isinstance(answer, KingpoleError):
            # No request has this number: the server means the stream as a whole.
            raise answer

    def fail(self, error: KingpoleError) -> None:
        """End the stream: everything that waits, and everything later, fails with `error`."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            _resolve(future, type(error)(error.message))

    @property
    def failed(self) -> bool:
        """True once the stream has ended."""
        return self._failure is not None


def _resolve(future: Future[Answer], answer: Answer) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(answer)


class Pending(Generic[T]):
    """An answer that will come. `result()` waits for it, no longer than the request's timeout allows."""

    def __init__(
        self,
        future: Future[Any],
        read: Callable[[Any], T],
        deadline_us: int | None,
        give_up: Callable[[], None],
    ) -> None:
        self._future, self._read, self._deadline_us, self._give_up = future, read, deadline_us, give_up

    def done(self) -> bool:
        """Return whether `result` returns or raises at once."""
        return self._future.done()

    def cancel(self) -> bool:
        """Say that the answer is no longer wanted; returns False if it is already there."""
        cancelled = self._future.cancel()
        if cancelled:
            self._give_up()
        return cancelled

    def add_done_callback(self, callback: Callable[[Pending[T]], object]) -> None:
        """Call `callback(self)` once the answer is there, from the thread that received it."""
        self._future.add_done_callback(lambda _future: callback(self))

    def result(self) -> T:
        """Wait for the answer.

        Raises:
            KingpoleError: The server refused, or no answer came in time.
            concurrent.futures.CancelledError: `cancel` was called.
        """
        try:
            answer = (
                self._future.result()
                if self._future.done()
                else self._future.result(seconds_left(self._deadline_us))
            )
        except (FutureTimeoutError, DeadlineExceeded):
            if self._future.done() and not self._future.cancelled():
                return self._read(self._future.result())
            self._give_up()
            raise DeadlineExceeded("no answer came in time") from None
        return self._read(answer)
