"""The two kinds of client behind one face, so that each case is written once.

Every method is awaited; those of the blocking client block the loop, on which nothing else runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import kingpole_client
import numpy.typing as npt
from kingpole_client import InferResponse

Array = npt.NDArray[Any]
Inputs = Mapping[str, Any]
AWAITED = "aio-"
"""Comes before the URLs that are for the awaited client."""


class CaseFailedError(Exception):
    """What was expected, and what came."""


def demand(true: bool, text: str) -> None:
    """Raise unless something is so.

    Raises:
        CaseFailedError: It is not.
    """
    if not true:
        raise CaseFailedError(text)


class Client(Protocol):
    """What the cases ask for."""

    async def infer(self, model: str, inputs: Inputs, **options: Any) -> InferResponse:
        """Ask for one inference."""
        ...

    async def infer_sent(
        self, model: str, inputs: Inputs, on_sent: Callable[[], None], **options: Any
    ) -> InferResponse:
        """Ask for one inference, and tell when the request has left."""
        ...

    async def infer_given_up(self, model: str, inputs: Inputs, after_s: float, **options: Any) -> bool:
        """Ask for one inference and give it up; returns whether that ended it."""
        ...

    def infer_many(
        self, model: str, requests: Iterable[Inputs], in_flight: int
    ) -> AsyncIterator[InferResponse]:
        """Ask for many, some at a time."""
        ...

    def stream(self, model: str, inputs: Inputs, **options: Any) -> AsyncIterator[InferResponse]:
        """Ask for any number of responses; closing the iterator closes the stream."""
        ...

    async def ask(self, name: str, *arguments: Any) -> Any:
        """Call `live`, `ready` or `metadata`."""
        ...

    async def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array in shared memory."""
        ...

    async def close(self) -> None:
        """Close it."""
        ...


# How long a request takes to leave: nothing says so, and the server is on this machine.
_LEAVES_S = 0.4


class Blocking:
    """`kingpole_client.Client`."""

    def __init__(self, client: kingpole_client.Client) -> None:
        self._client = client

    async def infer(self, model: str, inputs: Inputs, **options: Any) -> InferResponse:
        return self._client.infer(model, inputs, **options)

    async def infer_sent(
        self, model: str, inputs: Inputs, on_sent: Callable[[], None], **options: Any
    ) -> InferResponse:
        pending = self._client.submit(model, inputs, **options)
        await asyncio.sleep(_LEAVES_S)
        on_sent()
        return pending.result()

    async def infer_given_up(self, model: str, inputs: Inputs, after_s: float, **options: Any) -> bool:
        pending = self._client.submit(model, inputs, **options)
        await asyncio.sleep(after_s)
        demand(pending.cancel(), "cancel() said that the answer is already there")
        try:
            pending.result()
        except concurrent.futures.CancelledError:
            return True
        return False

    async def infer_many(
        self, model: str, requests: Iterable[Inputs], in_flight: int
    ) -> AsyncIterator[InferResponse]:
        for response in self._client.infer_many(model, requests, in_flight=in_flight):
            yield response

    async def stream(self, model: str, inputs: Inputs, **options: Any) -> AsyncIterator[InferResponse]:
        with self._client.stream(model, inputs, **options) as responses:
            for response in responses:
                yield response

    async def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self._client, name)(*arguments)

    async def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._client.empty(shape, dtype)

    async def close(self) -> None:
        self._client.close()


class Awaited:
    """`kingpole_client.AsyncClient`."""

    def __init__(self, client: kingpole_client.AsyncClient) -> None:
        self._client = client

    async def infer(self, model: str, inputs: Inputs, **options: Any) -> InferResponse:
        return await self._client.infer(model, inputs, **options)

    async def infer_sent(
        self, model: str, inputs: Inputs, on_sent: Callable[[], None], **options: Any
    ) -> InferResponse:
        task = asyncio.ensure_future(self._client.infer(model, inputs, **options))
        await asyncio.wait([task], timeout=_LEAVES_S)
        on_sent()
        return await task

    async def infer_given_up(self, model: str, inputs: Inputs, after_s: float, **options: Any) -> bool:
        task = asyncio.ensure_future(self._client.infer(model, inputs, **options))
        await asyncio.wait([task], timeout=after_s)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    async def infer_many(
        self, model: str, requests: Iterable[Inputs], in_flight: int
    ) -> AsyncIterator[InferResponse]:
        async for response in self._client.infer_many(model, requests, in_flight=in_flight):
            yield response

    async def stream(self, model: str, inputs: Inputs, **options: Any) -> AsyncIterator[InferResponse]:
        async with self._client.stream(model, inputs, **options) as responses:
            async for response in responses:
                yield response

    async def ask(self, name: str, *arguments: Any) -> Any:
        return await getattr(self._client, name)(*arguments)

    async def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return await self._client.empty(shape, dtype)

    async def close(self) -> None:
        await self._client.close()


async def connect(url: str, **options: Any) -> Client:
    """Make the client that a URL is for."""
    if url.startswith(AWAITED):
        return Awaited(await kingpole_client.aconnect(url.removeprefix(AWAITED), **options))
    return Blocking(kingpole_client.connect(url, **options))


async def refused(asking: Awaitable[object], kind: type[kingpole_client.KingpoleError], *words: str) -> str:
    """Wait for an error of a kind, with some words in its text; returns the text.

    Raises:
        CaseFailedError: It did not come, or another one did.
    """
    expected = f"expected {kind.code} with {' and '.join(map(repr, words)) or 'any text'}"
    try:
        answer = await asking
    except kingpole_client.KingpoleError as error:
        matches = type(error) is kind and all(word in error.message for word in words)
        demand(matches, f"{expected}, got {error}")
        return error.message
    raise CaseFailedError(f"{expected}, got {answer!r}")
