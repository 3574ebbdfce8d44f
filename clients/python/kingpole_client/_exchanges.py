"""Requests on a stream that wait for their answers. Knows no socket.

Every exchange begun is answered exactly once: by its frame, by the end of its stream, or by being given up.
No more requests are open than the server has granted: one, and what its Credit messages say.
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
from kingpole_client._shared_memory import Placement
from kingpole_client._values import Credit, InferResponse
from kingpole_client.errors import DeadlineExceeded, KingpoleError, Unimplemented

T = TypeVar("T")

# What is granted is cut to this: no stream has that many requests open.
MOST_GRANTED = 1 << 16


def one_response(answer: Answer) -> Answer:
    """Make an error of one response of several, for a request that waits for one."""
    if isinstance(answer, InferResponse) and answer.stage != "only":
        return Unimplemented(
            f"model '{answer.model}' answers a request with any number of responses: use stream"
        )
    return answer


def goes_on(answer: Answer) -> bool:
    """Return whether the server has more to say to the same request."""
    return isinstance(answer, InferResponse) and answer.stage == "part"


class Ledger:
    """Which exchanges gave or give credit back. Not for use from several threads at once."""

    def __init__(self) -> None:
        self._questions: set[int] = set()

    def ask(self, exchange: int) -> None:
        """Note an exchange that took no credit."""
        self._questions.add(exchange)

    def returned(self, exchange: int, answer: Answer) -> int:
        """Return how many requests an answer allows beyond those allowed before."""
        if isinstance(answer, Credit):
            return min(answer.requests, MOST_GRANTED)
        if goes_on(answer):
            return 0
        if exchange in self._questions:
            self._questions.remove(exchange)
            return 0
        # The answer of a request that was given up counts as well.
        return int(exchange != 0)


class Permits:
    """How many more requests the server takes. A server that grants without end costs nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._left = 1

    def acquire(self, timeout_s: float | None) -> bool:
        """Take one; returns whether there was one in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._left > 0, timeout_s):
                return False
            self._left -= 1
            return True

    def release(self, requests: int = 1) -> None:
        """Give some more."""
        with self._changed:
            self._left = min(self._left + requests, MOST_GRANTED)
            self._changed.notify(requests)


class Placements:
    """Where requests' tensors are in shared memory, until the server says that it does not use them."""

    def __init__(self) -> None:
        self._kept: dict[int, Placement] = {}

    def keep(self, exchange: int, placement: Placement) -> None:
        """Keep a request's ranges."""
        self._kept[exchange] = placement

    def drop(self, exchange: int) -> None:
        """Forget a request that the server was not told of."""
        self._kept.pop(exchange, None)

    def clear(self) -> None:
        """Forget all: their memory is not used for another connection."""
        self._kept = {}

    def decode(self, exchange: int, frame: Frame) -> Answer:
        """Decode an answer, whose tensors may be where they were asked for. An error is one as well."""
        placement = self._kept.get(exchange)
        try:
            answer = decode_answer(frame, placement)
        except KingpoleError as error:
            answer = error
        if placement is not None and not goes_on(answer):
            # Also for the Credit in place of the answer to a request that was given up.
            self._kept.pop(exchange, None)
            placement.learn(answer)
        return answer


class Exchanges:
    """The exchanges of one stream, by number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._ledger = Ledger()
        self._credit = Permits()
        self._last = 0
        self._placements = Placements()
        self._failure: KingpoleError | None = None

    def begin(self, deadline_us: int | None, *, is_request: bool) -> tuple[int, Future[Answer]]:
        """Take the next number; for a request, once the server allows one more.

        Raises:
            DeadlineExceeded: The server did not allow it in time.
            KingpoleError: The stream has ended.
        """
        if is_request and not self._credit.acquire(seconds_left(deadline_us)):
            raise DeadlineExceeded("the server answered none of the requests before this one in time")
        with self._lock:
            if self._failure is not None:
                # Whoever waits for credit next has to learn of it too.
                self._credit.release()
                raise type(self._failure)(self._failure.message)
            self._last += 1
            if not is_request:
                self._ledger.ask(self._last)
            future: Future[Answer] = Future()
            self._waiting[self._last] = future
            return self._last, future

    def place(self, exchange: int, placement: Placement) -> None:
        """Keep where a request's tensors are until the server says that it does not use them any more."""
        with self._lock:
            self._placements.keep(exchange, placement)

    def withdraw(self, exchange: int) -> None:
        """Forget an exchange that the server was not told of."""
        with self._lock:
            self._waiting.pop(exchange, None)
            self._placements.drop(exchange)
            returned = self._ledger.returned(exchange, True)
        if returned:
            self._credit.release()

    def give_up(self, exchange: int) -> bool:
        """Forget an exchange; returns whether it was still waiting."""
        with self._lock:
            return self._waiting.pop(exchange, None) is not None

    def answer(self, frame: Frame) -> int | None:
        """Hand a received frame to whom it belongs; returns an exchange to cancel, if there is one.

        Raises:
            KingpoleError: The frame makes no sense and belongs to nobody: the stream cannot go on.
        """
        exchange = exchange_of(frame)
        answer = self._placements.decode(exchange, frame)
        with self._lock:
            returned = self._ledger.returned(exchange, answer)
            future = None if isinstance(answer, Credit) else self._waiting.pop(exchange, None)
        if returned:
            self._credit.release(returned)
        if future is not None:
            resolve(future, one_response(answer))
            return exchange if goes_on(answer) else None
        if exchange == 0 and isinstance(answer, KingpoleError):
            # No request has this number: the server means the stream as a whole.
            raise answer
        return None

    def fail(self, error: KingpoleError) -> None:
        """End the stream: everything that waits, and everything later, fails with `error`."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            waiting, self._waiting = self._waiting, {}
            self._placements.clear()
        self._credit.release()
        for future in waiting.values():
            resolve(future, type(error)(error.message))

    @property
    def failed(self) -> bool:
        """True once the stream has ended."""
        return self._failure is not None


def resolve(future: Future[Answer], answer: Answer) -> None:
    """Answer a request, unless nobody waits for it any more."""
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
