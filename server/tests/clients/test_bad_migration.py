"""Bad input on the paths of other servers: each gets its status and a text that names the thing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from running import MAX_BODY_BYTES
from served import IDENTITY, MLP
from wire import as_json, graphpipe_request, post

PREDICT = f"/v1/models/{MLP}:predict"
CSV = {"Content-Type": "text/csv"}
DEEP = 100_000


@dataclass(frozen=True)
class Bad:
    """A body, and how it is refused."""

    says: str
    body: bytes
    names: tuple[str, ...]
    path: str = PREDICT
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)


def rows(says: str, instances: object, *names: str, path: str = PREDICT) -> Bad:
    return Bad(says, as_json({"instances": instances}), names, path)


def frame(says: str, body: object, *names: str) -> Bad:
    return Bad(says, as_json(body), names, "/invocations")


def csv(says: str, body: bytes, *names: str) -> Bad:
    return Bad(says, body, names, "/invocations", 400, CSV)


BAD = [
    rows("ragged rows", [[1, 2, 3, 4], [5]], "'x'", "[1]"),
    rows("a list among numbers", [[1, 2, [3], 4]], "'x'", "[0,2]"),
    rows("a number among lists", [[[1]], [2]], "'x'", "[1,0]"),
    rows("too few columns", [[1, 2, 3]], "'x'", "[1,3]", "[-1,4]"),
    rows("a wrong rank", [1, 2, 3, 4], "'x'", "[4]", "[-1,4]"),
    rows("text as a number", [[1, 2, 3, "4"]], "'x'", "[0,3]", "FP32"),
    rows("nothing as a number", [[1, 2, 3, None]], "'x'", "[0,3]", "null"),
    rows("truth as a number", [[1, 2, 3, True]], "'x'", "[0,3]", "true"),
    rows("an object as a number", [[1, 2, 3, {}]], "'x'", "[0,3]", "an object"),
    rows("base64 as a number", [[1, 2, 3, {"b64": "AAAA"}]], "'x'", "[0,3]", "base64"),
    rows("no rows", [], "empty"),
    rows("rows that are an object", {"x": [1]}, "'instances'"),
    rows("an unknown input", [{"z": [1, 2, 3, 4]}], "'z'", "'x'"),
    rows("rows that lack an input", [{"x": [1, 2, 3, 4]}, {}], "'x'", "instances[1]"),
    rows("several inputs without names", [[1]], "'floats'", path=f"/v1/models/{IDENTITY}:predict"),
    rows(
        "a fraction for an integer",
        [{"counts": [1.5]}],
        "'counts'",
        "[0,0]",
        "1.5",
        path=f"/v1/models/{IDENTITY}:predict",
    ),
    rows("a half too large", [{"halves": [7e4]}], "'halves'", "FP16", path=f"/v1/models/{IDENTITY}:predict"),
    Bad("an integer too large", b'{"inputs":{"counts":[[9223372036854775808]]}}', ("'counts'", "INT64"),
        f"/v1/models/{IDENTITY}:predict"),
    Bad("a number too large", b'{"instances":[[1e39,0,0,0]]}', ("'x'", "[0,0]", "1e39")),
    Bad("bare NaN", b'{"instances":[[NaN,0,0,0]]}', ("JSON",)),
    Bad("nothing", b"", ("JSON",)),
    Bad("text", b"predict, please", ("JSON",)),
    Bad("a list", b"[1]", ("an object",)),
    Bad("JSON that is cut off", b'{"instances":[[1', ("JSON",)),
    Bad("lists without end", b'{"instances":' + b"[" * DEEP + b"1" + b"]" * DEEP + b"}", ("deeper",)),
    Bad("objects without end", b'{"instances":[' + b'{"a":' * DEEP + b"}" * DEEP + b"]}", ("JSON",)),
    Bad("an object too deep", b'{"instances":[' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"]}", ("'x'",)),
    Bad("rows twice", b'{"instances":[[1]],"instances":[[1]]}', ("duplicate", "instances")),
    Bad("rows and columns", b'{"instances":[[1]],"inputs":[[1]]}', ("both",)),
    Bad("an unknown signature", b'{"instances":[[1,2,3,4]],"signature_name":"train"}', ("'train'",)),
    Bad("an unknown model", b"{}", ("unknown model", "'nobody'"), "/v1/models/nobody:predict", 404),
    Bad("an unknown version", b"{}", ("'7'",), f"/v1/models/{MLP}/versions/7:predict", 404),
    Bad("an unknown target", b"{}", ("'nobody'",), "/invocations", 404,
        {"X-Amzn-SageMaker-Target-Model": "nobody"}),
    Bad("examples that are numbers", b'{"examples":[1]}', ("examples[0]",), f"/v1/models/{MLP}:classify"),
    frame("no known field", {"data": [[1]]}, "dataframe_split"),
    frame("two fields", {"instances": [[1]], "inputs": [[1]]}, "exactly one"),
    frame("a frame without data", {"dataframe_split": {"columns": ["a"]}}, "data"),
    frame("a frame with more", {"dataframe_split": {"data": [[1]], "q": 1}}, "q"),
    frame("a frame with ragged rows", {"dataframe_split": {"data": [[1, 2, 3, 4], [1]]}}, "'x'", "[1]"),
    frame("a frame with fewer names", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "row 0"),
    frame("a frame with a missing value", {"dataframe_split": {"data": [[1, 2, 3, None]]}}, "'x'", "[0,3]"),
    frame("records that differ", {"dataframe_records": [{"a": 1}, {"b": 1}]}, "record 1", "'b'"),
    frame("Open Inference gone wrong", {"inputs": [{"datatype": "FP32"}]}, "'name'"),
    csv("CSV with ragged rows", b"a,b\n1\n", "CSV"),
    csv("CSV with text", b"a,b,c,d\n1,2,3,x\n", "'x'", "[0,3]"),
    csv("CSV with an empty field", b"a,b,c,d\n1,2,3,\n", "'x'", "[0,3]"),
    csv("CSV that is not UTF-8", b"a,b,c,d\n1,2,3,\xff\n", "CSV"),
    csv("CSV without rows", b"a,b,c,d\n", "no rows"),
    csv("CSV whose first line may be names", b"0,1,2,3\n1,2,3,4\n", "header="),
    Bad("another media type", b"PAR1", ("application/json",), "/invocations", 415,
        {"Content-Type": "application/vnd.apache.parquet"}),
    Bad("binary without its length", b"{}", ("json-header-size",), "/invocations", 400,
        {"Content-Type": "application/vnd.sagemaker-triton.binary+json"}),
    Bad("a model to load without a name", b"{}", ("model_name",), "/models"),
]  # fmt: skip


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.says.replace(" ", "-")) for bad in BAD])
def test_it_is_refused_with_a_text(address: tuple[str, int], bad: Bad) -> None:
    answer = post(address, bad.path, bad.body, bad.headers)
    assert answer.status == bad.status, answer.text
    text = json.loads(answer.text)["error"]
    assert len(text) < 2000
    for name in bad.names:
        assert name in text, text


@pytest.mark.parametrize("path", [PREDICT, "/invocations", f"/endpoints/{MLP}/invocations"])
def test_a_body_above_the_limit_is_refused(address: tuple[str, int], path: str) -> None:
    answer = post(address, path, b"", {"Content-Length": str(MAX_BODY_BYTES + 1)})
    assert answer.status == 413, answer.text


@pytest.mark.parametrize("path", [PREDICT, "/invocations"])
def test_a_broken_flatbuffer_is_refused_as_graphpipe_does(address: tuple[str, int], path: str) -> None:
    whole = graphpipe_request(bytes(16), (1, 4))
    assert post(address, path, whole).status == 200
    for body in (whole[: len(whole) // 2], b"\x00" * 64):
        answer = post(address, path, body)
        assert answer.status == 400, answer.text
        assert answer.headers["content-type"].startswith("text/plain")


def test_a_few_bytes_do_not_become_gigabytes(address: tuple[str, int]) -> None:
    # A million rows of empty lists, and as many empty records.
    many = 500_000
    for body in ({"instances": [[]] * many}, {"dataframe_records": [{}] * many}):
        assert post(address, "/invocations", as_json(body)).status == 400
