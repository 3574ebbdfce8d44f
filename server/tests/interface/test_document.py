"""The document and the page, made of models without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from described_models import HOSTILE, HOSTILE_TENSOR
from kingpole.openapi.document import make_document
from kingpole.openapi.models import (
    MOST_ELEMENTS,
    ServedModel,
    UnservedModel,
    curl_line,
    example_request,
    latest,
)
from kingpole.openapi.page import PAGE_HEADERS, make_page
from kingpole.signature import TensorSpec
from openapi_spec_validator import validate

COMMITTED = Path(__file__).parents[3] / "protocol" / "schema" / "openapi.yaml"
URL = "http://localhost:8000"


def model(*inputs: TensorSpec, version: str = "1", **fields: Any) -> ServedModel:
    known: dict[str, Any] = {
        "name": "m", "version": version, "platform": "onnxruntime_onnx", "backend": "onnx", "runs": "inline",
        "description": "", "max_batch_size": 0, "outputs": (TensorSpec("y", "FP32", (1,)),),
    }  # fmt: skip
    return ServedModel(**{**known, "inputs": inputs or (TensorSpec("x", "FP32", (-1, 4)),), **fields})


class Parsed(HTMLParser):
    """A page's tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_committed_document_is_the_one_that_the_table_makes() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "kingpole.openapi"], check=True, capture_output=True, text=True
    )
    assert COMMITTED.read_text(encoding="utf-8") == made.stdout


def test_the_committed_document_is_valid_openapi() -> None:
    document = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_a_model_gets_paths_and_schemas_of_its_own() -> None:
    models = [model(), model(version="10"), model(version="9")]
    document = make_document(models, main=["https://h:1", "unix:/s"], management="http://h:2")
    validate(document)
    assert document["servers"] == [{"url": "https://h:1"}]
    assert document["paths"]["/metrics"]["servers"] == [{"url": "http://h:2"}]
    own = document["paths"]["/v2/models/m/infer"]["post"]
    assert own["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/InferRequest.m.10"
    }
    for version in ("1", "9", "10"):
        assert f"/v2/models/m/versions/{version}/infer" in document["paths"]


def test_versions_are_compared_as_numbers() -> None:
    assert [each.version for each in latest([model(version="9"), model(version="10")])] == ["10"]


@pytest.mark.parametrize(
    ("spec", "shape", "data"),
    [
        (TensorSpec("x", "FP32", (-1, 2)), [1, 2], [0, 0]),
        (TensorSpec("x", "BYTES", (2,)), [2], ["", ""]),
        (TensorSpec("x", "BOOL", ()), [], [False]),
        (TensorSpec("x", "INT64", (0, -1)), [0, 1], []),
    ],
)
def test_an_example_is_the_smallest_request(spec: TensorSpec, shape: list[int], data: list[Any]) -> None:
    (given,) = (example_request(model(spec)) or {})["inputs"]
    assert given == {"name": "x", "datatype": spec.datatype, "shape": shape, "data": data}


def test_an_optional_input_is_left_out_of_an_example_but_not_of_the_schema() -> None:
    served = model(TensorSpec("x", "FP32", (1,)), TensorSpec("bias", "FP32", (1,), True))
    assert [given["name"] for given in (example_request(served) or {})["inputs"]] == ["x"]
    schema = make_document([served])["components"]["schemas"]["InferRequest.m.1"]
    inputs = schema["properties"]["inputs"]
    assert (inputs["minItems"], inputs["maxItems"], len(inputs["items"]["anyOf"])) == (1, 2, 2)


def test_a_request_that_would_be_huge_is_not_written_as_json() -> None:
    served = model(TensorSpec("x", "UINT8", (-1, MOST_ELEMENTS + 1)))
    assert example_request(served) is None
    document = make_document([served])
    validate(document)
    operation = document["paths"]["/v2/models/m/infer"]["post"]
    assert "examples" not in operation["requestBody"]["content"]["application/json"]
    page = make_page([served], [], main=[URL])
    assert f"head -c {MOST_ELEMENTS + 1} /dev/zero" in page
    assert "examples/m/1" not in page


def test_a_model_without_inputs_is_described() -> None:
    served = model()
    validate(make_document([ServedModel(**{**vars(served), "inputs": (), "outputs": ()})]))


def test_a_unix_socket_is_asked_through_it() -> None:
    line = curl_line(model(), "unix:/run/a b")
    assert line.startswith("curl --unix-socket '/run/a b' http://localhost/v2/models/m/infer -d ")


def test_what_others_wrote_is_text_on_the_page_and_nothing_else() -> None:
    hostile = model(
        TensorSpec(HOSTILE_TENSOR, HOSTILE, (1,)), description=HOSTILE, platform=HOSTILE, runs=HOSTILE,
        outputs=(TensorSpec(HOSTILE, "FP32", (1,)),),
    )  # fmt: skip
    broken = UnservedModel(name=HOSTILE, version=HOSTILE, state=HOSTILE, reason=HOSTILE)
    parsed = Parsed(make_page([hostile], [broken], main=["http://h:1/" + HOSTILE]))
    plain = Parsed(
        make_page([model()], [UnservedModel(name="b", version="1", state="s", reason="r")], main=[URL])
    )
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in plain.tags}
    assert not {"script", "img", "b"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.text.count(HOSTILE) >= 8
    assert HOSTILE_TENSOR in parsed.text
    # JSON in a document is made by a JSON writer; what is left is that it stays one.
    assert HOSTILE in json.dumps(make_document([hostile])).encode().decode("unicode_escape")


def test_the_page_fetches_nothing() -> None:
    parsed = Parsed(make_page([model()], [], main=[URL]))
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in parsed.tags}
    targets = [attributes["href"] or "" for tag, attributes in parsed.tags if "href" in attributes]
    assert targets
    assert not [target for target in targets if ":" in target or target.startswith("/")]
    assert "url(" not in make_page([], [], main=[URL])
    assert "default-src 'none'" in PAGE_HEADERS["Content-Security-Policy"]
