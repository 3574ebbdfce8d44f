"""Both clients over every transport that needs no gRPC, against a server made of the same codec."""

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import kingpole_client
import numpy as np
import pytest
from frame_server import FrameServer
from kingpole_client import _clock

SCHEMES = ["http", "frame", "unix"]


@pytest.fixture
def server(request, tmp_path):
    scheme = request.param
    with FrameServer(tmp_path / "k.sock" if scheme == "unix" else None) as server:
        server.url = f"unix:{server.authority}" if scheme == "unix" else f"{scheme}://{server.authority}"
        yield server


every_scheme = pytest.mark.parametrize("server", SCHEMES, indirect=True)
streams = pytest.mark.parametrize("server", ["frame", "unix"], indirect=True)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@every_scheme
def test_an_inference_comes_back(server):
    with kingpole_client.connect(server.url) as client:
        response = client.infer(
            "m", {"x": X, "s": np.array(["é"])}, id="5", parameters={"k": 1}, timeout_us=5_000_000
        )
        np.testing.assert_array_equal(response.outputs["x"], X)
        assert response["s"].tolist() == ["é".encode()]
        assert (response.model, response.version, response.id, response.parameters) == (
            "m",
            "1",
            "5",
            {"k": 1},
        )
        assert response.timing.batch_rows == 1


@every_scheme
def test_a_big_tensor_comes_back(server):
    big = np.random.default_rng(0).normal(size=(3, 1 << 20)).astype(np.float32)
    with kingpole_client.connect(server.url) as client:
        np.testing.assert_array_equal(client.infer("m", {"x": big})["x"], big)


@every_scheme
@pytest.mark.parametrize(
    ("number", "kind"),
    [(1, "Cancelled"), (3, "InvalidArgument"), (4, "DeadlineExceeded"), (5, "NotFound"),
     (7, "PermissionDenied"),
     (8, "ResourceExhausted"), (9, "FailedPrecondition"), (12, "Unimplemented"), (13, "Internal"),
     (14, "Unavailable"), (16, "Unauthenticated"), (77, "Internal")],
)  # fmt: skip
def test_each_code_is_its_own_error(server, number, kind):
    with kingpole_client.connect(server.url) as client:
        with pytest.raises(getattr(kingpole_client, kind), match="said the server") as caught:
            client.infer("error", {}, parameters={"number": number})
        assert caught.value.retry_after_ms == 1500
        client.infer("m", {"x": X})


@every_scheme
def test_many_requests_come_back_in_order(server):
    with kingpole_client.connect(server.url) as client:
        responses = client.infer_many("m", ({"x": np.array([i])} for i in range(500)), in_flight=16)
        assert [int(response["x"][0]) for response in responses] == list(range(500))


@every_scheme
def test_threads_share_a_client(server):
    with kingpole_client.connect(server.url) as client, ThreadPoolExecutor(8) as threads:
        values = threads.map(lambda i: int(client.infer("m", {"x": np.array([i])})["x"][0]), range(300))
        assert list(values) == list(range(300))


@every_scheme
def test_no_answer_is_deadline_exceeded_here(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    with kingpole_client.connect(server.url, timeout_us=30_000) as client:
        with pytest.raises(kingpole_client.DeadlineExceeded):
            client.infer("silent", {"x": X})
        with pytest.raises(kingpole_client.DeadlineExceeded):
            client.submit("silent", {"x": X}).result()


@streams
def test_giving_up_cancels_at_the_server(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    with kingpole_client.connect(server.url) as client:
        with pytest.raises(kingpole_client.DeadlineExceeded):
            client.infer("silent", {"x": X}, timeout_us=10_000)
        assert server.cancelled.wait(10)
        pending = client.submit("silent", {"x": X})
        assert pending.cancel()
        with pytest.raises(CancelledError):
            pending.result()
        client.infer("m", {"x": X})
    assert server.cancels == [1, 2]


@streams
def test_no_more_is_open_than_was_granted(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    server.credit = 2
    with kingpole_client.connect(server.url) as client:
        silent = [client.submit("silent", {"x": X}) for _ in range(3)]
        with pytest.raises(kingpole_client.DeadlineExceeded, match="none of the requests before"):
            client.submit("m", {"x": X}, timeout_us=20_000)
        assert client.ready(), "questions need no credit"
        assert server.requests == ["silent"] * 3
        waited = threading.Thread(target=client.infer, args=("m", {"x": X}))
        waited.start()
        assert silent[0].cancel()
        waited.join(10)
        assert not waited.is_alive(), "what was given up gave its credit back"
        responses = client.infer_many("m", ({"x": np.array([i])} for i in range(100)), in_flight=16)
        assert [int(response["x"][0]) for response in responses] == list(range(100))
        # What is refused here before it is sent costs nothing.
        for _ in range(5):
            with pytest.raises(kingpole_client.InvalidArgument):
                client.infer("m", {"x": X}, parameters={"much": 1 << 64})
        client.infer("m", {"x": X}, timeout_us=9_000_000)


@streams
def test_the_end_of_a_stream_ends_the_wait_for_credit(server):
    server.credit = 0
    with kingpole_client.connect(server.url) as client:
        silent = client.submit("silent", {"x": X})
        assert server.asked.wait(10)
        with ThreadPoolExecutor(3) as threads:
            waiting = [threads.submit(client.infer, "m", {"x": X}, timeout_us=20_000_000) for _ in range(3)]
            while sum(not each.running() for each in waiting):
                pass
            server.drop()
            for each in waiting:
                with pytest.raises(kingpole_client.Unavailable):
                    each.result(10)
        with pytest.raises(kingpole_client.Unavailable):
            silent.result()


@streams
def test_the_async_client_opens_no_more_than_was_granted(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    server.credit = 2

    async def ask() -> None:
        async with await kingpole_client.aconnect(server.url) as client:
            waiting = [asyncio.ensure_future(client.infer("silent", {"x": X})) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(kingpole_client.DeadlineExceeded):
                await client.infer("m", {"x": X}, timeout_us=20_000)
            assert await client.ready(), "questions need no credit"
            assert server.requests == ["silent"] * 3
            waiting[0].cancel()
            await client.infer("m", {"x": X}, timeout_us=9_000_000)
            last = [asyncio.ensure_future(client.infer("silent", {"x": X})) for _ in range(5)]
            await client.ready()
            server.drop()
            ended = await asyncio.gather(*waiting, *last, return_exceptions=True)
            assert all(isinstance(each, BaseException) for each in ended)

    asyncio.run(ask())


@streams
def test_answers_may_come_in_any_order(server):
    with kingpole_client.connect(server.url) as client:
        late, second = client.submit("late", {"x": np.array([1])}), client.submit("m", {"x": np.array([2])})
        assert (int(late.result()["x"][0]), int(second.result()["x"][0])) == (1, 2)


@every_scheme
def test_a_broken_connection_fails_what_waits_and_is_replaced(server):
    with kingpole_client.connect(server.url) as client:
        failures = []

        def ask() -> None:
            try:
                client.infer("silent", {"x": X})
            except kingpole_client.KingpoleError as error:
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert server.asked.wait(10)
        server.drop()
        thread.join(10)
        assert [error.code for error in failures] == ["UNAVAILABLE"]
        client.infer("m", {"x": X})
        assert server.requests == ["silent", "m"], "nothing is sent twice"


@every_scheme
def test_closing_fails_later_calls(server):
    client = kingpole_client.connect(server.url)
    client.infer("m", {"x": X})
    client.close()
    with pytest.raises(kingpole_client.Cancelled):
        client.infer("m", {"x": X})


@every_scheme
def test_the_server_is_described(server):
    with kingpole_client.connect(server.url) as client:
        assert client.live()
        assert client.metadata().name == "kingpole"
        assert client.models() == [kingpole_client.ModelState("m", "1", "READY", "")]
        if server.url.startswith("http"):
            assert not client.ready()
            with pytest.raises(kingpole_client.NotFound, match="Request for unknown model"):
                client.ready("a/b")
            assert client.metadata("m").inputs == (kingpole_client.TensorSpec("x", "FP32", (-1, 2)),)
        else:
            assert client.ready()
            assert not client.ready("loading")


def test_nobody_there_is_unavailable_and_names_the_address(tmp_path):
    with FrameServer() as server:
        authority = server.authority
    for url in (f"http://{authority}", f"frame://{authority}", f"unix:{tmp_path}/none"):
        with kingpole_client.connect(url) as client:
            assert not client.live()
            with pytest.raises(kingpole_client.Unavailable) as caught:
                client.infer("m", {"x": X})
            assert url in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "unix:", "http://a:b", "http://u:p@h", "frame://h/p", "localhost:8000"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(kingpole_client.InvalidArgument):
        kingpole_client.connect(url)


def test_a_token_that_cannot_travel_is_refused():
    for url, token in (("unix:/x", "t"), ("http://h", "a\r\nEvil: 1")):
        with pytest.raises(kingpole_client.InvalidArgument, match="token"):
            kingpole_client.connect(url, token=token)


@every_scheme
def test_the_async_client_does_the_same(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)

    async def ask() -> None:
        async with await kingpole_client.aconnect(server.url) as client:
            response = await client.infer("m", {"x": X}, id="5", timeout_us=5_000_000)
            np.testing.assert_array_equal(response["x"], X)
            big = np.random.default_rng(0).normal(size=(3, 1 << 19))
            np.testing.assert_array_equal((await client.infer("m", {"x": big}))["x"], big)
            many = client.infer_many("m", ({"x": np.array([i])} for i in range(200)), in_flight=16)
            assert [int(r["x"][0]) async for r in many] == list(range(200))
            with pytest.raises(kingpole_client.NotFound, match="said the server"):
                await client.infer("error", {}, parameters={"number": 5})
            with pytest.raises(kingpole_client.DeadlineExceeded):
                await client.infer("silent", {"x": X}, timeout_us=10_000)
            assert await client.live()
            assert (await client.metadata()).name == "kingpole"
            assert (await client.models())[0].state == "READY"
            if not server.url.startswith("http"):
                assert await client.ready()
                await asyncio.to_thread(server.cancelled.wait, 10)
                assert server.cancels
        with pytest.raises(kingpole_client.Cancelled):
            await client.infer("m", {"x": X})

    asyncio.run(ask())


@every_scheme
def test_the_async_client_survives_a_broken_connection(server):
    async def ask() -> None:
        async with await kingpole_client.aconnect(server.url) as client:
            waiting = asyncio.ensure_future(client.infer("silent", {"x": X}))
            assert await asyncio.to_thread(server.asked.wait, 10)
            server.drop()
            with pytest.raises(kingpole_client.Unavailable):
                await waiting
            await client.infer("m", {"x": X})

    asyncio.run(ask())
