"""Servers that promise too much or answer what was not asked, and requests that are taken back over HTTP."""

import asyncio
import socket
import threading
import time
from concurrent.futures import CancelledError

import flatbuffers
import kingpole_client
import numpy as np
import pytest
from frame_server import FrameServer, _finish, encode_credit
from kingpole_client._aio_stream import AsyncExchanges
from kingpole_client._exchanges import Exchanges
from kingpole_client._frame import split_frame
from kingpole_client._generated import kingpole_generated as fb

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ENDLESS = split_frame(memoryview(encode_credit((1 << 32) - 1)))


def test_credit_without_end_costs_nothing():
    async def awaited():
        exchanges = AsyncExchanges()
        for _ in range(1000):
            exchanges.answer(ENDLESS)
        await exchanges.begin(is_request=True)

    started = time.monotonic()
    exchanges = Exchanges()
    for _ in range(1000):
        exchanges.answer(ENDLESS)
    exchanges.begin(None, is_request=True)
    asyncio.run(awaited())
    assert time.monotonic() - started < 1


def test_credit_that_comes_to_a_cancelled_wait_goes_to_the_next():
    async def run():
        exchanges = AsyncExchanges()
        await exchanges.begin(is_request=True)
        first, second = (asyncio.ensure_future(exchanges.begin(is_request=True)) for _ in range(2))
        await asyncio.sleep(0)
        exchanges.answer(split_frame(memoryview(encode_credit(1))))
        first.cancel()
        number, _ = await asyncio.wait_for(second, 5)
        assert number == 2
        assert first.cancelled()

    asyncio.run(run())


class Partial(FrameServer):
    """Answers with one response of several, also to who wants one."""

    def answer(self, frame):
        builder = flatbuffers.Builder(64)
        fb.ResponseStart(builder)
        fb.ResponseAddStage(builder, fb.Stage.PART)
        return _finish(builder, fb.Message.Response, fb.ResponseEnd(builder), frame.header.uint64(2))


def test_one_of_several_responses_is_no_answer_over_http():
    async def awaited(url):
        async with await kingpole_client.aconnect(url) as client:
            await client.infer("m", {"x": X})

    with Partial() as server:
        url = f"http://{server.authority}"
        with kingpole_client.connect(url) as client, pytest.raises(kingpole_client.Unimplemented):
            client.infer("m", {"x": X})
        with pytest.raises(kingpole_client.Unimplemented):
            asyncio.run(awaited(url))


def test_giving_up_over_http_closes_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with kingpole_client.connect(url) as client:
            pending = client.submit("m", {"x": X})
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                assert connection.recv(4)
                assert pending.cancel()
                while connection.recv(1 << 16):
                    pass
            with pytest.raises(CancelledError):
                pending.result()


def test_a_request_given_up_before_it_is_sent_is_never_sent():
    with FrameServer() as server, kingpole_client.connect(f"http://{server.authority}") as client:
        # As many as the client asks at once.
        silent = [client.submit("silent", {"x": X}) for _ in range(64)]
        queued = client.submit("m", {"x": X})
        assert queued.cancel()
        for pending in silent:
            assert pending.cancel()
        client.infer("last", {"x": X})
        assert "m" not in server.requests


def test_a_fault_of_our_own_reaches_whoever_waits(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("of all things")

    with FrameServer() as server, kingpole_client.connect(f"http://{server.authority}") as client:
        monkeypatch.setattr(client, "_infer_over_http", fail)
        failed = threading.Event()
        pending = client.submit("m", {"x": X})
        pending.add_done_callback(lambda _: failed.set())
        with pytest.raises(kingpole_client.Internal, match="of all things"):
            pending.result()
        assert failed.wait(5)
