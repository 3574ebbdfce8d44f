"""Bad input over HTTP/1.1: each gets its status and a text that names the thing, and the server goes on."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from running import MAX_BODY_BYTES
from served import IDENTITY, MLP, rows
from wire import (
    FRAME,
    Answer,
    as_json,
    chunk,
    connect,
    frame_request,
    graphpipe_request,
    head,
    json_request,
    post,
    read_answer,
)

INFER = f"/v2/models/{MLP}/infer"
ONE = rows(1)
DEEP = 100_000


@dataclass(frozen=True)
class Bad:
    """A body, and how it is refused."""

    says: str
    body: bytes
    status: int
    names: tuple[str, ...]
    path: str = INFER
    headers: Mapping[str, str] = field(default_factory=dict)


def bad_json(
    says: str, names: tuple[str, ...], status: int = 400, path: str = INFER, **fields: object
) -> Bad:
    return Bad(says, as_json(json_request(ONE, **fields)), status, names, path)


def without(name: str) -> Bad:
    """An input that does not say one thing."""
    body = json_request(ONE)
    del body["inputs"][0][name]
    return Bad(f"an input without its {name}", as_json(body), 400, (name,))


def of_count(says: str, number: str) -> Bad:
    """A number that an INT64 cannot be, for a model that would take any that it can."""
    given = f'{{"inputs": [{{"name": "counts", "shape": [1, 1], "datatype": "INT64", "data": [{number}]}}]}}'
    return Bad(says, given.encode(), 400, ("'counts'",), f"/v2/models/{IDENTITY}/infer")


def binary(says: str, declared: int, given: int, names: tuple[str, ...]) -> Bad:
    """A binary tensor whose size was declared as one thing and given as another."""
    described = json_request(ONE, parameters={"binary_data_size": declared})
    del described["inputs"][0]["data"]
    above = as_json(described)
    return Bad(
        says, above + bytes(given), 400, names, headers={"Inference-Header-Content-Length": str(len(above))}
    )


def packed(says: str, body: bytes, coding: str, status: int, *names: str) -> Bad:
    return Bad(says, body, status, names, headers={"Content-Encoding": coding})


def frame(says: str, body: bytes, status: int, *names: str) -> Bad:
    return Bad(says, body, status, names, "/", {"Content-Type": FRAME})


def graphpipe(says: str, body: bytes, status: int, *names: str, path: str = f"/{MLP}") -> Bad:
    return Bad(says, body, status, names, path)


GOOD = as_json(json_request(ONE))
PIPE = graphpipe_request(ONE.tobytes(), (1, 4))
FRAMED = frame_request(ONE)

REST = [
    bad_json("a wrong shape", ("'x'", "[1,5]", "[-1,4]"), shape=[1, 5], data=[0] * 5),
    bad_json("a wrong rank", ("'x'", "[4]", "[-1,4]"), shape=[4]),
    bad_json("a negative dimension", ("'x'", "-1"), shape=[-1, 4]),
    bad_json("a shape whose product overflows", ("'x'",), shape=[2**62, 2**62]),
    bad_json("no rows at all", ("'x'", "0 rows"), shape=[0, 4], data=[]),
    bad_json("another datatype than the model's", ("'x'", "INT64", "FP32"), datatype="INT64", data=[0] * 4),
    bad_json("an unknown datatype", ("'x'", "FP33"), datatype="FP33"),
    bad_json("a lower-case datatype", ("'x'", "fp32"), datatype="fp32"),
    bad_json("fewer elements than the shape says", ("'x'", "3", "4"), data=[1, 2, 3]),
    bad_json("text where numbers belong", ("'x'",), data=["a", "b", "c", "d"]),
    bad_json("an unknown input", ("'z'", "'x'"), name="z"),
    bad_json("an unknown model", ("'nobody'",), 404, "/v2/models/nobody/infer"),
    bad_json("an unknown version", ("'7'", MLP), 404, f"/v2/models/{MLP}/versions/7/infer"),
    bad_json("a model name that climbs out", (), 404, "/v2/models/..%2f..%2fetc%2fpasswd/infer"),
    Bad("an unknown output", as_json({**json_request(ONE), "outputs": [{"name": "z"}]}), 400, ("'z'", "'y'")),
    *(without(name) for name in ("name", "datatype", "shape", "data")),
    Bad("no list of inputs", b"{}", 400, ("inputs",)),
    Bad("inputs that are null", b'{"inputs": null}', 400, ("inputs",)),
    of_count("an integer with a fraction", "1.0"),
    of_count("an integer with an exponent", "1e2"),
    of_count("an integer that does not fit", "9223372036854775808"),
    of_count("true for a number", "true"),
    of_count("null for a number", "null"),
    bad_json("a number that becomes infinite", ("'x'",), data=[1e39, 0, 0, 0]),
    bad_json("nesting other than the shape's", ("'x'",), data=[[1, 2], [3, 4]]),
    bad_json("a fraction in a shape", ("1.5", "i64"), shape=[1.5, 4]),
    bad_json("data and a binary size", ("'x'",), parameters={"binary_data_size": 16}),
    Bad("no inputs", as_json({"inputs": []}), 400, ("'x'", "missing")),
    Bad(
        "an input given twice",
        as_json({"inputs": json_request(ONE)["inputs"] * 2}),
        400,
        ("'x'", "twice"),
    ),
    Bad("an input left out", GOOD, 400, (IDENTITY, "'x'"), f"/v2/models/{IDENTITY}/infer"),
    Bad("an empty body", b"", 400, ("JSON",)),
    Bad("a body that is no JSON", b"model, please", 400, ("JSON",)),
    Bad("JSON that is cut off", GOOD[:-9], 400, ("JSON",)),
    Bad("JSON with something after it", GOOD + b"{}", 400, ("JSON",)),
    Bad("JSON of another form", b"[1,2,3]", 400, ("JSON",)),
    Bad("JSON that is not UTF-8", GOOD.replace(b'"x"', b'"\xff\xfe"'), 400, ("JSON",)),
    Bad("bare NaN", GOOD.replace(b"-5.0", b"NaN"), 400, ("JSON",)),
    Bad("lists nested without end", b"[" * DEEP, 400, ("JSON",)),
    Bad(
        "data nested too deep",
        GOOD.replace(b"[-5.0, -4.0, -3.0, -2.0]", b"[" * DEEP + b"]" * DEEP),
        400,
        ("nested deeper",),
    ),
    Bad("objects nested without end", b'{"a":' * DEEP, 400, ("JSON",)),
    Bad(
        "parameters nested without end",
        b'{"parameters":{"p":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b'},"inputs":[]}',
        400,
        ("JSON",),
    ),
    binary("fewer bytes than were declared", 16, 12, ("'x'",)),
    binary("more bytes than were declared", 16, 20, ("4",)),
    binary("a byte count that does not fit the shape", 12, 12, ("'x'", "12", "16")),
    binary("a negative byte count", -16, 16, ("'x'", "binary_data_size")),
    Bad(
        "a JSON length beyond the body",
        GOOD,
        400,
        ("Inference-Header-Content-Length", "999999"),
        headers={"Inference-Header-Content-Length": "999999"},
    ),
    Bad(
        "a JSON length that is no number",
        GOOD,
        400,
        ("inference-header-content-length",),
        headers={"Inference-Header-Content-Length": "many"},
    ),
    packed("gzip that is not gzip", GOOD, "gzip", 400, "gzip"),
    packed("gzip that is cut off", gzip.compress(GOOD)[:-6], "gzip", 400, "gzip"),
    packed("deflate that is not deflate", GOOD, "deflate", 400, "deflate"),
    packed("a coding that nobody knows", GOOD, "snappy", 415, "snappy"),
    packed(
        "a small body that unpacks beyond the limit",
        gzip.compress(bytes(MAX_BODY_BYTES + 1)),
        "gzip",
        413,
        str(MAX_BODY_BYTES),
    ),
    packed(
        "zlib that unpacks beyond the limit",
        zlib.compress(bytes(MAX_BODY_BYTES + 1)),
        "deflate",
        413,
        str(MAX_BODY_BYTES),
    ),
    Bad("a deadline of 0", GOOD, 504, ("deadline",), headers={"Kingpole-Timeout-Us": "0"}),
    Bad(
        "a timeout that is no number",
        GOOD,
        400,
        ("kingpole-timeout-us",),
        headers={"Kingpole-Timeout-Us": "soon"},
    ),
]

GRAPHPIPE = [
    graphpipe(
        "GraphPipe with a wrong shape", graphpipe_request(bytes(20), (1, 5)), 400, "'x'", "[1,5]", "[-1,4]"
    ),
    graphpipe(
        "GraphPipe with a wrong datatype",
        graphpipe_request(bytes(32), (1, 4), type_number=11),
        400,
        "'x'",
        "FP64",
        "FP32",
    ),
    graphpipe(
        "GraphPipe with a wrong byte count", graphpipe_request(bytes(12), (1, 4)), 400, "input 0", "12", "16"
    ),
    graphpipe(
        "GraphPipe with a type of no kind",
        graphpipe_request(bytes(16), (1, 4), type_number=0),
        400,
        "input 0",
        "Null",
    ),
    graphpipe(
        "GraphPipe with an unknown type",
        graphpipe_request(bytes(16), (1, 4), type_number=99),
        400,
        "input 0",
        "99",
    ),
    graphpipe("GraphPipe with a negative dimension", graphpipe_request(b"", (-1, 4)), 400, "input 0", "-1"),
    graphpipe(
        "GraphPipe with an unknown input",
        graphpipe_request(bytes(16), (1, 4), input_names=("z",)),
        400,
        "'z'",
    ),
    graphpipe(
        "GraphPipe with an unknown output",
        graphpipe_request(bytes(16), (1, 4), output_names=("z",)),
        400,
        "'z'",
    ),
    graphpipe(
        "GraphPipe with more names than tensors",
        graphpipe_request(bytes(16), (1, 4), input_names=("x", "z")),
        400,
        "2 input names",
    ),
    graphpipe(
        "GraphPipe of an unknown kind", graphpipe_request(bytes(16), (1, 4), kind=9), 400, "req_type is 9"
    ),
    graphpipe("GraphPipe for an unknown model", PIPE, 404, "nobody", path="/nobody"),
    graphpipe("GraphPipe for an unknown version", PIPE, 404, "7", path=f"/models/{MLP}/versions/7"),
    graphpipe("GraphPipe that is empty", b"", 400, "malformed GraphPipe body"),
    graphpipe("GraphPipe that is text", b"model, please", 400, "malformed GraphPipe body"),
    graphpipe("GraphPipe that is cut in half", PIPE[: len(PIPE) // 2], 400, "malformed GraphPipe body"),
    graphpipe(
        "GraphPipe whose root lies beyond its end",
        b"\xff\xff\xff\x7f" + PIPE[4:],
        400,
        "malformed GraphPipe body",
    ),
    Bad("GraphPipe with a deadline of 0", PIPE, 504, ("deadline",), f"/{MLP}", {"Kingpole-Timeout-Us": "0"}),
]

FRAMES = [
    frame("a frame that is empty", b"", 400, "frame"),
    frame("a frame that is text", b"model, please, and be quick", 400, "frame"),
    frame("a frame of another version", FRAMED[:7] + b"\x63" + FRAMED[8:], 400, "version"),
    frame("a frame that is cut off", FRAMED[:-64], 400, "frame"),
    frame("a frame with bytes after it", FRAMED + bytes(64), 400, "frame"),
    frame("a frame whose flatbuffer is noise", FRAMED[:16] + b"\xff" * 48 + FRAMED[64:], 400, "frame"),
    frame("a frame with too long a header", FRAMED[:8] + b"\xff\xff\xff\xff" + FRAMED[12:], 429, "header"),
    frame(
        "a frame with a wrong shape",
        frame_request(np.zeros((1, 5), np.float32)),
        400,
        "'x'",
        "[1,5]",
        "[-1,4]",
    ),
    frame(
        "a frame with a wrong datatype", frame_request(np.zeros((1, 4), np.int8)), 400, "'x'", "INT8", "FP32"
    ),
    frame("a frame with an unknown input", frame_request(ONE, name="z"), 400, "'z'", "'x'"),
    frame("a frame for an unknown model", frame_request(ONE, model="nobody"), 404, "'nobody'"),
    frame("a frame for an unknown version", frame_request(ONE, version="7"), 404, "'7'"),
    Bad(
        "a frame with a deadline of 0",
        FRAMED,
        504,
        ("deadline",),
        "/",
        {"Content-Type": FRAME, "Kingpole-Timeout-Us": "0"},
    ),
]


def check_refused(answer: Answer, status: int, names: tuple[str, ...]) -> None:
    assert answer.status == status, answer.text
    for name in names:
        assert name in answer.text, f"expected {name!r} in {answer.text!r}"


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.says) for bad in (*REST, *GRAPHPIPE, *FRAMES)])
def test_a_bad_body_is_refused_with_its_status_and_a_text_that_names_the_thing(
    address: tuple[str, int], bad: Bad
) -> None:
    answer = post(address, bad.path, bad.body, bad.headers)
    check_refused(answer, bad.status, bad.names)
    if bad in REST:
        assert answer.headers["content-type"] == "application/json"
        assert answer.body.startswith(b'{"error":"')
    if bad in GRAPHPIPE:
        assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        pytest.param(INFER, "application/json", 413, id="REST"),
        pytest.param(f"/{MLP}", "application/octet-stream", 413, id="GraphPipe"),
        # An Error frame has its code's status, which knows no 413.
        pytest.param("/", FRAME, 413, id="a frame"),
    ],
)
def test_a_body_announced_as_too_long_is_refused_before_it_is_sent(
    address: tuple[str, int], path: str, content_type: str, status: int
) -> None:
    with connect(address) as opened:
        opened.sendall(head(path, {"Content-Length": str(MAX_BODY_BYTES + 1), "Content-Type": content_type}))
        check_refused(read_answer(opened), status, (str(MAX_BODY_BYTES),))


@pytest.mark.parametrize("path", [INFER, f"/{MLP}"])
def test_a_body_that_becomes_too_long_unannounced_is_refused_on_the_way(
    address: tuple[str, int], path: str
) -> None:
    piece = bytes(1 << 16)
    with connect(address) as opened:
        opened.sendall(head(path, {"Transfer-Encoding": "chunked"}))
        for _ in range(MAX_BODY_BYTES // len(piece)):
            opened.sendall(chunk(piece))
        # One byte more than the limit; the end of the body never comes.
        opened.sendall(chunk(b"x"))
        check_refused(read_answer(opened), 413, (str(MAX_BODY_BYTES),))


@pytest.mark.parametrize("path", [INFER, f"/{MLP}"])
def test_a_client_that_sends_a_too_long_body_before_it_reads_gets_the_refusal(
    address: tuple[str, int], path: str
) -> None:
    pieces = [chunk(bytes(1 << 16))] * (MAX_BODY_BYTES // (1 << 16) + 8)
    for _ in range(20):
        with connect(address) as opened:
            opened.sendall(head(path, {"Transfer-Encoding": "chunked"}))
            with contextlib.suppress(ConnectionError):
                opened.sendall(b"".join(pieces) + b"0\r\n\r\n")
            check_refused(read_answer(opened), 413, (str(MAX_BODY_BYTES),))


def test_a_body_of_just_the_limit_is_read(address: tuple[str, int]) -> None:
    padded = GOOD + b" " * (MAX_BODY_BYTES - len(GOOD))
    assert post(address, INFER, padded).status == 200


@pytest.mark.parametrize(
    "sent", ["nothing", "half of the headers", "the headers", "half of the body", "everything"]
)
def test_a_client_that_leaves_in_the_middle_disturbs_nobody(address: tuple[str, int], sent: str) -> None:
    above = head(INFER, {"Content-Length": str(len(GOOD))})
    bytes_sent = {
        "nothing": b"",
        "half of the headers": above[: len(above) // 2],
        "the headers": above,
        "half of the body": above + GOOD[: len(GOOD) // 2],
        "everything": above + GOOD,
    }[sent]
    for _ in range(50):
        with connect(address) as opened:
            opened.sendall(bytes_sent)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x16\x03\x01" + bytes(200), id="a TLS handshake"),
        pytest.param(b"HELO there\r\n\r\n", id="another protocol"),
        pytest.param(bytes(range(256)) * 8, id="every byte"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, id="headers without end"),
        pytest.param(
            head(INFER, {"Content-Length": "5", "content-length": "6"}) + b"hello", id="two lengths"
        ),
        pytest.param(head(INFER, {"Content-Length": "-1"}), id="a negative length"),
        pytest.param(head(INFER, {"Transfer-Encoding": "chunked"}) + b"zz\r\n", id="a chunk that is none"),
    ],
)
def test_bytes_that_are_no_request_end_their_connection_only(
    address: tuple[str, int], garbage: bytes
) -> None:
    with connect(address) as opened:
        try:
            opened.sendall(garbage)
            received = opened.recv(65536)
        except ConnectionError:
            received = b""
        assert not received or received.startswith(b"HTTP/1.1 4"), received
