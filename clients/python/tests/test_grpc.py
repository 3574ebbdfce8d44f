"""Both clients over gRPC, against a grpcio server that answers frames."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import kingpole_client
import numpy as np
import pytest
from frame_server import FrameAnswers, encode_credit
from kingpole_client import _clock
from kingpole_client._frame import split_frame

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
X = np.arange(6, dtype=np.float32).reshape(2, 3)
INDEX = b"\x0a\x0f\x0a\x01m\x12\x011\x1a\x05READY\x22\x00"


@pytest.fixture
def server():
    answers = FrameAnswers()

    def stream(requests, context):
        yield encode_credit(answers.credit)
        for request in requests:
            answer = answers.answer(split_frame(memoryview(request)))
            if answer is not None:
                yield answer

    def index(_request, context):
        answers.token = dict(context.invocation_metadata()).get("authorization")
        return INDEX

    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "kingpole.v1.Inference", {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
                ),
                grpc.method_handlers_generic_handler(
                    "inference.GRPCInferenceService",
                    {"RepositoryIndex": grpc.unary_unary_rpc_method_handler(index)},
                ),
            ]
        )
        answers.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield answers
        server.stop(None).wait()


def test_inferences_come_back_over_one_stream(server):
    with kingpole_client.connect(server.url) as client:
        np.testing.assert_array_equal(client.infer("m", {"x": X}, timeout_us=9_000_000)["x"], X)
        big = np.random.default_rng(0).normal(size=(3, 1 << 20)).astype(np.float32)
        np.testing.assert_array_equal(client.infer("m", {"x": big})["x"], big)
        many = client.infer_many("m", ({"x": np.array([i])} for i in range(300)))
        assert [int(response["x"][0]) for response in many] == list(range(300))
        with ThreadPoolExecutor(8) as threads:
            values = threads.map(lambda i: int(client.infer("m", {"x": np.array([i])})["x"][0]), range(100))
            assert list(values) == list(range(100))


def test_no_more_is_open_than_was_granted(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    server.credit = 1
    with kingpole_client.connect(server.url) as client:
        silent = [client.submit("silent", {"x": X}) for _ in range(2)]
        with pytest.raises(kingpole_client.DeadlineExceeded, match="none of the requests before"):
            client.submit("m", {"x": X}, timeout_us=20_000)
        assert client.ready(), "questions need no credit"
        assert server.requests == ["silent", "silent"]
        assert silent[0].cancel()
        client.infer("m", {"x": X}, timeout_us=9_000_000)

    async def ask() -> None:
        async with await kingpole_client.aconnect(server.url) as client:
            waiting = [asyncio.ensure_future(client.infer("silent", {"x": X})) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(kingpole_client.DeadlineExceeded):
                await client.infer("m", {"x": X}, timeout_us=20_000)
            waiting[0].cancel()
            await client.infer("m", {"x": X}, timeout_us=9_000_000)
            waiting[1].cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(ask())
    assert server.requests.count("silent") == 4


def test_errors_and_timeouts_are_typed(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)
    with kingpole_client.connect(server.url) as client:
        with pytest.raises(kingpole_client.ResourceExhausted, match="said the server") as caught:
            client.infer("error", {}, parameters={"number": 8})
        assert caught.value.retry_after_ms == 1500
        with pytest.raises(kingpole_client.DeadlineExceeded):
            client.infer("silent", {"x": X}, timeout_us=20_000)
        assert server.cancelled.wait(10)


def test_the_server_is_described(server):
    with kingpole_client.connect(server.url, token="secret") as client:
        assert client.live()
        assert client.ready()
        assert client.metadata().name == "kingpole"
        assert client.models() == [kingpole_client.ModelState("m", "1", "READY", "")]
        assert server.token == "Bearer secret"


def test_nobody_there_is_unavailable_and_names_the_address(server):
    with kingpole_client.connect("grpc://127.0.0.1:1") as client:
        assert not client.live()
        with pytest.raises(kingpole_client.Unavailable, match=r"grpc://127\.0\.0\.1:1"):
            client.infer("m", {"x": X})


def test_the_async_client_does_the_same(server, monkeypatch):
    monkeypatch.setattr(_clock, "GRACE_US", 1000)

    async def ask() -> None:
        async with await kingpole_client.aconnect(server.url) as client:
            np.testing.assert_array_equal((await client.infer("m", {"x": X}))["x"], X)
            many = client.infer_many("m", ({"x": np.array([i])} for i in range(200)))
            assert [int(response["x"][0]) async for response in many] == list(range(200))
            with pytest.raises(kingpole_client.NotFound):
                await client.infer("error", {}, parameters={"number": 5})
            with pytest.raises(kingpole_client.DeadlineExceeded):
                await client.infer("silent", {"x": X}, timeout_us=20_000)
            assert await asyncio.to_thread(server.cancelled.wait, 10)
            assert await client.ready()
            assert (await client.models())[0].name == "m"

    asyncio.run(ask())


def test_a_server_that_takes_no_frames_over_grpc_is_said_to_and_http_is_named():
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        refused = pytest.raises(kingpole_client.Unimplemented, match=r"127\.0\.0\.1.*over http")
        with kingpole_client.connect(url) as client, refused:
            client.infer("m", {"x": X})
        server.stop(None).wait()
