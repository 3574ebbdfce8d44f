"""Frames one after another in the body of one HTTP answer, which is read while it is made."""

from __future__ import annotations

from collections.abc import Mapping

from kingpole_client import _rest
from kingpole_client._frame import MEDIA_TYPE, Frame, FrameAssembler, split_frame
from kingpole_client._http import HttpPool
from kingpole_client._messages import Buffers
from kingpole_client._parts import STREAM_MEDIA_TYPE
from kingpole_client.errors import KingpoleError, Unavailable, Unimplemented

STREAM_HEADERS = {"Content-Type": MEDIA_TYPE, "Accept": f"{STREAM_MEDIA_TYPE}"}
NOT_FRAMES = "this server takes no frames, and so gives one response to a request at most: use infer"


def is_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the answer is frames, one after another."""
    return status == 200 and headers.get("content-type", "").startswith(STREAM_MEDIA_TYPE)


def other_answer(status: int, headers: Mapping[str, str], body: memoryview, limit: int) -> Frame:
    """Return the one frame of an answer that is no stream.

    Raises:
        KingpoleError: It is no frame either.
    """
    if headers.get("content-type", "").startswith(MEDIA_TYPE):
        return split_frame(body, limit)
    error = _rest.error_of_answer(status, headers, bytes(body[:8192]))
    raise Unimplemented(NOT_FRAMES) if status in (200, 404, 405, 415, 501) else error


class HttpSource:
    """The answer to one request, on a connection lent for it."""

    def __init__(
        self, pool: HttpPool, path: str, buffers: Buffers, deadline_us: int | None, limit: int
    ) -> None:
        self._pool, self._deadline_us = pool, deadline_us
        self._assembler = FrameAssembler(limit)
        self._frames: list[Frame] = []
        self._connection, status, headers = pool.begin("POST", path, STREAM_HEADERS, buffers, deadline_us)
        self._streams = is_stream(status, headers)
        if self._streams:
            return
        try:
            body = self._connection.rest(headers, deadline_us)
            self._frames = [other_answer(status, headers, body, limit)]
        except BaseException:
            self._connection.close()
            raise

    def next(self) -> Frame:
        """Wait for the next frame."""
        while not self._frames:
            chunk = self._connection.piece(self._deadline_us) if self._streams else None
            if chunk is None:
                raise Unavailable("the server ended its answer before the last response")
            self._frames = self._assembler.feed(chunk)
        return self._frames.pop(0)

    def close(self, *, ended: bool) -> None:
        """Give the connection back if the whole answer was read, else close it, which cancels the request."""
        try:
            if ended and self._streams and self._connection.piece(self._deadline_us) is not None:
                self._connection.reusable = False
        except KingpoleError:
            self._connection.reusable = False
        self._pool.give_back(self._connection)
