"""HTTP for asyncio, through aiohttp; imported when the first request needs it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kingpole_client._address import Address
from kingpole_client._frame import Frame, FrameAssembler, aligned_memory
from kingpole_client._http import HttpAnswer
from kingpole_client._http_parts import is_stream, other_answer
from kingpole_client.errors import Cancelled, InvalidArgument, ResourceExhausted, Unavailable, Unimplemented

if TYPE_CHECKING:
    import aiohttp

_MOST_ASSUMED_BYTES = 1 << 20


class AsyncHttp:
    """A session of aiohttp, opened when first needed."""

    def __init__(self, address: Address, token: str | None, tls: ssl.SSLContext | None, limit: int) -> None:
        self._address, self._tls, self._limit = address, tls, limit
        # aiohttp would offer to take compressed answers, which would have to be bounded as they unfold.
        self._headers = {"User-Agent": "kingpole-client/0.1", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def exchange(
        self, method: str, path: str, headers: Mapping[str, str], buffers: Sequence[bytes | memoryview]
    ) -> HttpAnswer:
        """Send one request and receive its answer. The caller bounds the wait.

        The headers describe the body, and go with it.
        """
        session = self._opened()
        import aiohttp

        sent: dict[str, str] = {}
        data: Any = None
        if buffers:
            sent = {**headers, "Content-Length": str(sum(len(buffer) for buffer in buffers))}
            data = _pieces(buffers)
        url = self._url(path)
        try:
            async with session.request(
                method, url, data=data, headers=sent, allow_redirects=False, ssl=self._tls or True
            ) as answer:
                body = await self._receive(answer)
                return HttpAnswer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body)
        except aiohttp.InvalidURL as error:
            raise InvalidArgument(f"{url} is no address: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self._address}: {error}") from None

    async def open(
        self, path: str, headers: Mapping[str, str], buffers: Sequence[bytes | memoryview]
    ) -> AsyncHttpSource:
        """Send one request whose answer is frames, one after another. The caller bounds the wait."""
        session = self._opened()
        import aiohttp

        sent = {**headers, "Content-Length": str(sum(len(buffer) for buffer in buffers))}
        try:
            answer = await session.request(
                "POST", self._url(path), data=_pieces(buffers), headers=sent, allow_redirects=False,
                ssl=self._tls or True,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self._address}: {error}") from None
        said = {name.lower(): value for name, value in answer.headers.items()}
        if is_stream(answer.status, said):
            return AsyncHttpSource(answer, str(self._address), self._limit)
        try:
            frame = other_answer(answer.status, said, await self._receive(answer), self._limit)
        finally:
            answer.close()
        return AsyncHttpSource(None, str(self._address), self._limit, frame)

    def _url(self, path: str) -> Any:
        import yarl

        scheme = "https" if self._address.secure else "http"
        return yarl.URL(f"{scheme}://{self._address.authority}{self._address.prefix}{path}", encoded=True)

    async def _receive(self, answer: aiohttp.ClientResponse) -> memoryview:
        announced = answer.content_length
        if announced is not None and announced > self._limit:
            raise ResourceExhausted(f"the answer has {announced} bytes, this client takes {self._limit}")
        memory = aligned_memory(_MOST_ASSUMED_BYTES if announced is None else announced)
        have = 0
        async for piece in answer.content.iter_any():
            end = have + len(piece)
            if end > self._limit:
                raise ResourceExhausted(
                    f"the answer has at least {end} bytes, this client takes {self._limit}"
                )
            if end > len(memory):
                grown = aligned_memory(2 * end)
                grown[:have] = memory[:have]
                memory = grown
            memory[have:end] = piece
            have = end
        return memory[:have].toreadonly()

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Cancelled("the client is closed")
        if self._session is None:
            try:
                import aiohttp
            except ImportError as error:
                raise Unimplemented(
                    f"asyncio over HTTP needs aiohttp: pip install 'kingpole-client[aio]' ({error})"
                ) from None
            path = self._address.path
            connector = aiohttp.UnixConnector(path) if path else aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )  # fmt: skip
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


class AsyncHttpSource:
    """The answer to one request, read while it is made."""

    def __init__(
        self, answer: aiohttp.ClientResponse | None, name: str, limit: int, frame: Frame | None = None
    ) -> None:
        self._answer, self._name = answer, name
        self._assembler = FrameAssembler(limit)
        self._frames = [] if frame is None else [frame]

    async def next(self) -> Frame:
        """Wait for the next frame."""
        import aiohttp

        while not self._frames:
            try:
                piece = b"" if self._answer is None else await self._answer.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise Unavailable(f"{self._name}: {error}") from None
            if not piece:
                raise Unavailable("the server ended its answer before the last response")
            self._frames = self._assembler.feed(memoryview(piece))
        return self._frames.pop(0)

    async def close(self, *, ended: bool) -> None:
        """Give the connection back if the whole answer was read, else close it, which cancels the request."""
        if self._answer is None:
            return
        if ended:
            self._answer.release()
        else:
            self._answer.close()


async def _pieces(buffers: Sequence[bytes | memoryview]) -> AsyncIterator[bytes | memoryview]:
    for buffer in buffers:
        yield buffer
