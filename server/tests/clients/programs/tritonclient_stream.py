"""What the streams of tritonclient.grpc do with a model that answers with any number of responses."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import report
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from served import COUNT, MLP, mlp, rows

_SECONDS = 30
Said = Any


class Stream:
    """A client's stream, and what its callback was given."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.said: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def count(self, number: int, name: str, **options: Any) -> None:
        given = triton.InferInput("count", [1], "INT32")
        given.set_data_from_numpy(np.array([number], np.int32))
        self.client.async_stream_infer(COUNT, [given], request_id=name, **options)

    def next(self) -> tuple[str, int | None, bool]:
        """The next response's id, value and whether it is final."""
        result, error = self.said.get(timeout=_SECONDS)
        assert error is None, error
        return shown(result)

    def expect_nothing(self) -> None:
        """End the stream well: nothing more may have come."""
        self.client.stop_stream()
        assert self.said.empty(), self.said.get()


def shown(result: Any) -> tuple[str, int | None, bool]:
    response = result.get_response()
    value = result.as_numpy("value")
    final = response.parameters["triton_final_response"].bool_param
    return response.id, None if value is None else int(value[0]), final


@contextlib.contextmanager
def stream(address: str, **options: Any) -> Iterator[Stream]:
    client = triton.InferenceServerClient(address)
    opened = Stream(client)
    client.start_stream(lambda result, error: opened.said.put((result, error)), **options)
    try:
        yield opened
    finally:
        client.stop_stream(cancel_requests=True)
        client.close()


def test_no_one_and_many_responses(address: str) -> None:
    with stream(address) as opened:
        for number in (0, 1, 5):
            opened.count(number, f"n{number}")
        assert opened.next() == ("n1", 0, False)
        assert [opened.next() for _ in range(5)] == [("n5", value, False) for value in range(5)]
        opened.expect_nothing()


def test_the_empty_final_response(address: str) -> None:
    with stream(address) as opened:
        for number in (0, 2):
            opened.count(number, f"n{number}", enable_empty_final_response=True)
        assert opened.next() == ("n0", None, True)
        assert [opened.next() for _ in range(3)] == [("n2", 0, False), ("n2", 1, False), ("n2", None, True)]
        opened.expect_nothing()


def test_an_ordinary_model_on_the_same_stream(address: str) -> None:
    with stream(address) as opened:
        x = rows(2)
        given = triton.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        opened.client.async_stream_infer(MLP, [given], request_id="mlp")
        opened.count(1, "count")
        said = [opened.said.get(timeout=_SECONDS)[0] for _ in range(2)]
        by_id = {result.get_response().id: result for result in said}
        assert np.array_equal(by_id["mlp"].as_numpy("y"), mlp(x))
        assert by_id["mlp"].get_response().parameters["triton_final_response"].bool_param
        assert shown(by_id["count"]) == ("count", 0, False)


def test_an_error_after_a_response(address: str) -> None:
    with stream(address) as opened:
        opened.count(5, "bad", parameters={"fail_at": 1})
        assert opened.next() == ("bad", 0, False)
        _, error = opened.said.get(timeout=_SECONDS)
        assert "cannot count beyond 1" in str(error), error
        opened.count(1, "good")
        assert opened.next() == ("good", 0, False)


def test_an_error_that_ends_the_stream(address: str) -> None:
    with stream(address, headers={"triton_grpc_error": "true"}) as opened:
        opened.count(5, "bad", parameters={"fail_at": 1})
        assert opened.next() == ("bad", 0, False)
        _, error = opened.said.get(timeout=_SECONDS)
        assert error is not None
        assert error.status() == "StatusCode.INTERNAL", error
        assert "cannot count beyond 1" in str(error), error


def test_cancelling_ends_the_model(address: str) -> None:
    with stream(address) as opened:
        opened.count(10_000, "slow", parameters={"wait_us": 10_000})
        assert opened.next() == ("slow", 0, False)
        opened.client.stop_stream(cancel_requests=True)
    # Its instance is free again long before it could have counted to the end.
    with stream(address) as opened:
        opened.count(1, "next")
        assert opened.next() == ("next", 0, False)


def test_one_response_is_asked_of_it(address: str) -> None:
    client = triton.InferenceServerClient(address)
    given = triton.InferInput("count", [1], "INT32")
    given.set_data_from_numpy(np.array([1], np.int32))
    try:
        client.infer(COUNT, [given])
    except triton.InferenceServerException as error:
        assert error.status() == "StatusCode.UNIMPLEMENTED", error
        return
    finally:
        client.close()
    raise AssertionError("a call for one response was answered")


async def test_asyncio(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        given = triton_aio.InferInput("count", [1], "INT32")
        given.set_data_from_numpy(np.array([3], np.int32))

        async def requests() -> Any:
            yield {"model_name": COUNT, "inputs": [given], "request_id": "a"}

        said = [shown(result) async for result, error in client.stream_infer(requests()) if error is None]
        assert said == [("a", 0, False), ("a", 1, False), ("a", 2, False)]


if __name__ == "__main__":
    report.run(globals())
