"""The generator against a real gRPC server (grpcio's), whose answers and stalls we know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from loadtest import arrivals, openloop
from loadtest.http2 import UNANSWERED
from loadtest.openinference import grpc_frame
from loadtest.openloop import Sent

_PATH = "/test.Service/Echo"


@contextmanager
def _served(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> Iterator[str]:
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}{_PATH}"
    finally:
        server.stop(None).wait()


def test_every_request_of_the_schedule_is_answered() -> None:
    schedule_us = arrivals.poisson(300, 500_000, 1)
    with _served(lambda request, _: request) as url:
        requests = openloop.run(url, grpc_frame(b"hello"), schedule_us, 2, 5_000_000)
    assert [one.intended_us for one in requests] == schedule_us
    assert all(one.status == 0 and one.body_bytes == 10 for one in requests)
    assert all(one.intended_us <= one.sent_us <= one.done_us for one in requests)


def test_a_body_larger_than_every_window_arrives_whole() -> None:
    body = bytes(range(256)) * 2_000
    with _served(lambda request, _: request if request == body else b"") as url:
        requests = openloop.run(url, grpc_frame(body), [0, 0, 0, 0], 1, 10_000_000)
    assert [one.body_bytes for one in requests] == [len(body) + 5] * 4


def test_a_grpc_error_is_a_failure_though_its_http_status_is_200() -> None:
    def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        raise AssertionError("abort raises")

    with _served(refuse) as url:
        requests = openloop.run(url, grpc_frame(b"x"), [0, 100], 1, 5_000_000)
    assert [one.status for one in requests] == [8, 8]


def test_requests_leave_on_schedule_though_none_is_answered_and_their_wait_counts() -> None:
    all_arrived = threading.Barrier(4)

    def answer_when_all_have_arrived(request: bytes, _: grpc.ServicerContext) -> bytes:
        all_arrived.wait(10)  # a closed loop would never get past this
        return request

    with _served(answer_when_all_have_arrived) as url:
        requests = openloop.run(url, grpc_frame(b"x"), [0, 50_000, 100_000, 150_000], 1, 5_000_000)
    assert [one.status for one in requests] == [0, 0, 0, 0]
    assert requests[0].done_us - requests[0].intended_us >= 150_000


def test_requests_without_an_answer_are_reported_and_not_waited_for_without_end() -> None:
    released = threading.Event()
    try:
        with _served(lambda request, _: request if released.wait(10) else b"") as url:
            requests = openloop.run(url, grpc_frame(b"x"), [0], 1, drain_us=200_000)
            released.set()
    finally:
        released.set()
    assert requests[0].status == UNANSWERED


def test_the_generator_admits_its_own_lag() -> None:
    on_time = [Sent(at, at + 10, at + 500, 0, 5) for at in range(0, 99_000, 1_000)]
    late = [Sent(99_000, 105_000, 105_500, 0, 5), Sent(100_000, 104_000, 106_000, 0, 5)]
    assert not openloop.summarize(on_time, 5).saturated
    summary = openloop.summarize([*on_time, *late], 5)
    assert (summary.late, summary.worst_lag_us, summary.saturated) == (2, 6_000, True)
    assert summary.max_us == 6_500


def test_an_answer_of_another_size_counts_as_failed() -> None:
    summary = openloop.summarize([Sent(0, 1, 2, 0, 5), Sent(0, 1, 2, 0, 4)], 5)
    assert (summary.answered, summary.failed) == (1, 1)


def test_a_run_without_any_answer_has_no_latency() -> None:
    with pytest.raises(ValueError, match="empty"):
        openloop.summarize([Sent(0, 1, 2, 14, 0)], None)
