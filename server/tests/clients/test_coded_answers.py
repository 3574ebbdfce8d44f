"""Which answers are compressed: those of `/infer` and of GraphPipe's paths."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from running import Running
from served import IDENTITY, MLP
from wire import FRAME, Answer, as_json, frame_request, graphpipe_request, json_request, post

ROWS = np.ones((32, 4), np.float32)


def infer(server: Running, accepted: str, count: int = 600) -> Answer:
    """Ask for an answer of this many floats."""
    tensors = (
        ("floats", "FP32", [1, count], [1.0] * count),
        ("halves", "FP16", [1, 1], [1.0]),
        ("texts", "BYTES", [1, 1], ["a"]),
        ("counts", "INT64", [1, 1], [1]),
    )
    body = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape, "data": data}
            for name, datatype, shape, data in tensors
        ]
    }
    path = f"/v2/models/{IDENTITY}/infer"
    return post((server.host, server.port), path, as_json(body), {"Accept-Encoding": accepted})


def need_zstd() -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")


def unzstd(packed: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("accepted", "coding", "unpack"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("br, x-gzip", "gzip", gzip.decompress),
        ("deflate, gzip;q=0.5", "deflate", zlib.decompress),
        ("gzip;q=0.2, zstd;q=0.3", "zstd", unzstd),
        ("gzip;q=0", None, bytes),
        ("identity, gzip;q=0.5", None, bytes),
        ("*", None, bytes),
    ],
)
def test_an_answer_is_compressed_as_its_client_likes_best(
    server: Running, accepted: str, coding: str | None, unpack: Callable[[bytes], bytes]
) -> None:
    if unpack is unzstd:
        need_zstd()
    answer = infer(server, accepted)
    assert answer.status == 200, answer.text
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"].lower() == "accept-encoding"
    assert unpack(answer.body) == infer(server, "").body


def test_short_answers_are_compressed_only_where_they_must_be(server: Running) -> None:
    short = infer(server, "gzip", count=1)
    assert (short.status, short.headers.get("content-encoding")) == (200, None)
    forced = infer(server, "gzip, identity;q=0", count=1)
    assert gzip.decompress(forced.body) == short.body
    assert infer(server, "identity;q=0").status == 406


def test_graphpipe_is_compressed_on_its_own_paths(server: Running) -> None:
    body = graphpipe_request(ROWS.tobytes(), ROWS.shape)
    address = server.host, server.port
    plain = post(address, f"/{MLP}", body)
    coded = post(address, f"/{MLP}", body, {"Accept-Encoding": "gzip, identity;q=0"})
    assert gzip.decompress(coded.body) == plain.body
    assert post(address, f"/{MLP}", body, {"Accept-Encoding": "identity;q=0"}).status == 406


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        (f"/v2/models/{MLP}/generate", as_json({"x": [1, 2, 3, 4]}), "application/json"),
        ("/v1/infer", frame_request(ROWS), FRAME),
        (f"/v1/models/{MLP}:predict", as_json({"instances": ROWS.tolist()}), "application/json"),
        (f"/models/{MLP}/invoke", as_json({"inputs": ROWS.tolist()}), "application/json"),
        ("/v2/models/nobody/infer", as_json(json_request(ROWS)), "application/json"),
    ],
)
def test_all_other_answers_go_plainly(server: Running, path: str, body: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type, "Accept-Encoding": "gzip, identity;q=0"}
    answer = post((server.host, server.port), path, body, headers)
    assert answer.status in (200, 404), answer.text
    assert "content-encoding" not in answer.headers
