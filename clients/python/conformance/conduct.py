"""Cases about time, order, amount and faults: deadlines, streams, pipelines, killed and hostile servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import kingpole_client
import numpy as np
from kingpole_client import DeadlineExceeded, KingpoleError, Unavailable

from conformance.answers import X, echoes
from conformance.kinds import Client, connect, demand, refused

REQUESTS = 10_000
LARGE = (5000, 5000)
HOSTILE_REQUESTS = 50
HOSTILE_LIMIT_BYTES = 16 << 20
HOSTILE_GROWTH_BYTES = 64 << 20


async def deadline(client: Client) -> None:
    """A timeout that passes while the model sleeps."""
    started = time.monotonic()
    asking = client.infer("sleeps", {"x": X}, parameters={"seconds": 5}, timeout_us=300_000)
    await refused(asking, DeadlineExceeded)
    took = time.monotonic() - started
    demand(0.25 <= took <= 2, f"DEADLINE_EXCEEDED came after {took:.3f} s")
    await echoes(client)


async def cancel(client: Client, heard: Path) -> None:
    """A request that is given up, of which the server hears."""
    # Connected and imported: what is given up after 0.2 s has then left.
    await echoes(client)
    started = time.monotonic()
    ended = await client.infer_given_up("sleeps", {"x": X}, 0.2, parameters={"seconds": 30})
    took = time.monotonic() - started
    demand(ended and took <= 2.2, f"given up after 0.2 s it ended after {took:.3f} s, cancelled: {ended}")
    await echoes(client)
    await _await_path(heard, 5)


async def _await_path(path: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not path.exists():  # noqa: ASYNC240 - a moment, on this machine
        demand(time.monotonic() < end, f"{path.name} was not written within {seconds} s")
        await asyncio.sleep(0.02)


def _counting(number: int) -> dict[str, Any]:
    return {"count": np.array([number], np.int32)}


async def stream(client: Client, mark: Path) -> None:
    """Any number of responses; an error among them; leaving early."""
    for number in (0, 1, 1000):
        values = [int(part["value"][0]) async for part in client.stream("count", _counting(number))]
        demand(values == list(range(number)), f"count {number} gave {len(values)} responses: {values[:5]}")
    await _failing(client)
    parameters = {"mark": str(mark)}
    async with aclosing(client.stream("count", _counting(1_000_000), parameters=parameters)) as responses:  # type: ignore[type-var]  # it is a generator
        for value in (0, 1):
            found = int((await anext(responses))["value"][0])
            demand(found == value, f"expected value {value}, got {found}")
    await _await_path(mark, 10)
    only = [part async for part in client.stream("echo-fp32", {"x": X})]
    demand(len(only) == 1 and np.array_equal(only[0]["x"], X), f"echo-fp32 streamed: {only}")
    await echoes(client)


async def _failing(client: Client) -> None:
    values: list[int] = []

    async def take() -> None:
        async for part in client.stream("count", _counting(5), parameters={"fail_at": 3}):
            values.append(int(part["value"][0]))  # noqa: PERF401 - what came before the error is kept

    await refused(take(), Unavailable, "cannot count beyond 3")
    demand(values == [0, 1, 2], f"before the error came {values}, expected [0, 1, 2]")


async def sequence(client: Client) -> None:
    """Two sequences, interleaved, of which each keeps its own sum."""
    sums: dict[int | str, list[float]] = {7: [], "seven": []}
    for value in (1, 2, 3):
        for identity, own in sums.items():
            place = kingpole_client.Sequence(identity, start=value == 1, end=value == 3)
            # The text's values are ten times the number's: a sum of both would show.
            x = np.array([[value * (1 if identity == 7 else 10)]], np.float32)
            own.append(float((await client.infer("sums", {"x": x}, sequence=place))["sum"][0, 0]))
    expected = {7: [1, 3, 6], "seven": [10, 30, 60]}
    demand(sums == expected, f"expected {expected}, got {sums}")


async def pipeline(client: Client) -> None:
    """Many requests in flight, each answered with its own values."""

    def requests() -> Iterator[dict[str, Any]]:
        for number in range(REQUESTS):
            yield {"x": np.full((1, 4), number, np.float32)}

    number = 0
    async for response in client.infer_many("echo-fp32", requests(), 64):
        found = response["x"].tolist()
        demand(found == [[number] * 4], f"request {number} was answered with {found}")
        number += 1
    demand(number == REQUESTS, f"{number} of {REQUESTS} requests were answered")


async def large(client: Client) -> None:
    """100 MB there and back."""
    x = np.arange(LARGE[0] * LARGE[1], dtype=np.uint32).reshape(LARGE).view(np.float32)
    found = (await client.infer("echo-fp32", {"x": x}))["x"]
    demand(found.shape == LARGE, f"the shape is {found.shape}")
    demand(np.array_equal(found.view(np.uint32), x.view(np.uint32)), "the bytes are others")


async def killed(client: Client) -> None:
    """The server dies under a request, and comes back."""
    waiting_since = 0.0

    def on_sent() -> None:
        nonlocal waiting_since
        print("waiting", flush=True)
        waiting_since = time.monotonic()

    await refused(client.infer_sent("sleeps", {"x": X}, on_sent, parameters={"seconds": 60}), Unavailable)
    took = time.monotonic() - waiting_since
    demand(waiting_since > 0 and took <= 5, f"UNAVAILABLE came {took:.1f} s after the server was killed")
    print("lost", flush=True)
    end = time.monotonic() + 20
    while True:
        try:
            return await echoes(client, timeout_us=5_000_000)
        except KingpoleError as error:
            demand(time.monotonic() < end, f"after 20 s it still says {error}")
            await asyncio.sleep(0.1)


def _status_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


async def hostile(url: str) -> None:
    """Bad bytes in every answer: an error of ours, soon, and no memory for it."""
    client = await connect(url, timeout_us=5_000_000, max_frame_bytes=HOSTILE_LIMIT_BYTES)
    before = _status_bytes("VmRSS")
    for number in range(HOSTILE_REQUESTS):
        started = time.monotonic()
        try:
            answer = await client.infer("echo-fp32", {"x": X})
        except KingpoleError as error:
            took = time.monotonic() - started
            demand(took <= 10, f"request {number} took {took:.1f} s: {error}")
            print(f"{number}: {took:.3f} s {error}"[:200])
        else:
            demand(False, f"request {number} was answered with {answer}")
    grown = _status_bytes("VmHWM") - before
    demand(grown < HOSTILE_GROWTH_BYTES, f"the program grew by {grown >> 20} MiB")
    await client.close()


async def shared_memory(url: str) -> None:
    """16 MiB through an arena, which the socket does not see."""
    client = await connect(url, shared_memory="128MiB")
    shape = (2048, 2048)
    for turn in range(20):
        # Every other one is made in the memory itself.
        x = await client.empty(shape, np.float32) if turn % 2 else np.empty(shape, np.float32)
        x.view(np.uint32)[...] = np.arange(x.size, dtype=np.uint32).reshape(shape) + turn
        found = (await client.infer("echo-fp32", {"x": x}))["x"]
        same = np.array_equal(found.view(np.uint32), x.view(np.uint32))
        demand(same, f"turn {turn}: the bytes are others")
    await client.close()
