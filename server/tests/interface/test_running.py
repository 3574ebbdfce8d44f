"""The interface as it is described, asked of a running server."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from described_models import write_broken
from kingpole.openapi.table import ROUTES
from openapi_spec_validator import validate
from served_process import Served, needs_core

pytestmark = needs_core

HERE = Path(__file__).parent
SCHEMATHESIS = HERE.parents[2] / ".cache" / "clients" / "schemathesis"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "5"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
# These change what the others find; they are asked by themselves.
CHANGES = r"^(repositoryModel|sagemaker)(Load|Unload)$"


def read(url: str, body: bytes | None = None, method: str | None = None) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), error.read()


def document_of(served: Served) -> dict[str, Any]:
    status, media_type, body = read(f"{served.management}/openapi.json")
    assert (status, media_type) == (200, "application/json")
    document: dict[str, Any] = json.loads(body)
    return document


def test_the_document_of_a_running_server_is_valid_and_names_its_ports(described: Served) -> None:
    document = document_of(described)
    validate(document)
    assert document["servers"] == [{"url": described.url}]
    assert document["paths"]["/metrics"]["servers"] == [{"url": described.management}]


def test_every_example_of_the_document_is_answered(described: Served) -> None:
    document = document_of(described)
    asked = set()
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            if "externalValue" in example:
                body = read(urljoin(f"{described.management}/openapi.json", example["externalValue"]))[2]
            else:
                body = json.dumps(example["value"]).encode()
            status, media_type, answer = read(described.url + path, body)
            assert (status, media_type) == (200, "application/json"), f"{path}: {answer!r}"
            asked.add(path)
    served = {each["name"] for each in json.loads(read(f"{described.management}/repository")[2])}
    assert {path.split("/")[3] for path in asked} == served
    assert "/v2/models/double/versions/1/infer" in asked


def test_every_command_of_the_page_is_answered(described: Served) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    status, media_type, body = read(f"{described.management}/docs")
    assert (status, media_type) == (200, "text/html")
    commands = [unescape(each) for each in re.findall(r"<pre><code>(.*?)</code></pre>", body.decode(), re.S)]
    assert len(commands) == len({each["name"] for each in _repository(described)})
    for command in commands:
        failing = command.replace("curl ", "curl --fail-with-body --silent --show-error ", 1)
        ended = subprocess.run(["bash", "-ec", failing], capture_output=True, check=False, timeout=60)
        assert ended.returncode == 0, f"{command}\n{ended.stdout!r}{ended.stderr!r}"
        assert b'"model_name"' in ended.stdout


def _repository(served: Served) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(read(f"{served.management}/repository")[2])
    return rows


def test_every_route_is_there_and_answers_as_described(described: Served) -> None:
    for route in ROUTES:
        base = described.url if route.port == "main" else described.management
        path = route.path.replace("{model}", "double").replace("{version}", "1").replace("{label}", "1")
        path = path.replace("{region}", "mine")
        for method in route.methods:
            body = None if method == "get" else b"{}"
            if route.operation in ("repositoryModelUnload", "managedUnload", "sagemakerUnload"):
                path = path.replace("double", "text")
            status, media_type, answer = read(base + path, body, method.upper())
            # GraphPipe's default model is none, as there are several.
            assert status in route.answers, f"{method} {path}: {status} {answer[:200]!r}"
            assert media_type in route.answers[status].bodies, f"{method} {path}: {media_type}"
            assert b"nothing is at" not in answer
    assert read(f"{described.url}/v2/repository/models/text/load", b"{}")[0] == 200


def test_the_table_has_every_route_of_the_main_port_and_no_other() -> None:
    described = {
        (route.path, method.upper()) for route in ROUTES if route.port == "main" for method in route.methods
    }
    core = importlib.import_module("kingpole._core")
    assert described == {(path, method) for path, methods in core.http_routes() for method in methods}


def test_a_model_that_is_not_served_is_shown_with_its_reason(tmp_path: Path) -> None:
    served = Served(str(write_broken(tmp_path)))
    try:
        page = read(f"{served.management}/docs")[2].decode()
    finally:
        served.end()
    assert "UNAVAILABLE" in page
    assert "ONNX Runtime" in page


@pytest.mark.parametrize("path", ["/examples/nobody/1", "/examples/double/7"])
def test_there_is_no_example_of_what_is_not_served(described: Served, path: str) -> None:
    status, media_type, _ = read(described.management + path)
    assert (status, media_type) == (404, "application/json")


@pytest.mark.timeout(36 * EXAMPLES)
@pytest.mark.parametrize("part", ["reading and inferring", "loading and unloading"])
def test_schemathesis_finds_nothing(described: Served, tmp_path: Path, part: str) -> None:
    """Longer by hand: `SCHEMATHESIS_EXAMPLES=100 pytest server/tests/interface -k schemathesis`."""
    if not (SCHEMATHESIS / ".installed").exists():
        pytest.skip("schemathesis is missing; install it with server/tests/clients/setup")
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(document_of(described)))
    command = [
        str(SCHEMATHESIS / "bin" / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml"),
        "run", str(document), "--url", described.url,
        "--exclude-tag", "Management", "--seed", "1", "--max-examples", str(EXAMPLES),
        "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--continue-on-failure",
        "--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none", "--no-color",
        # A timeout that has passed is answered as such, which is no fault of the server's.
        "--header", "kingpole-timeout-us:60000000",
    ]  # fmt: skip
    chosen = "exclude" if part.startswith("reading") else "include"
    command += [f"--{chosen}-operation-id-regex", CHANGES]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=35 * EXAMPLES,
    )
    assert ended.returncode == 0, ended.stdout[-20000:] + ended.stderr
    assert described.process.poll() is None
