"""Web pages of other origins: off by default, listed ones only, and what their browsers are told."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

import pytest
from served_process import PLUS, Served, needs_core, refused_at_the_start, start, write_model

__all__ = ["start"]
pytestmark = needs_core

PAGE = "https://page.example"
FRAMES = "/v1/infer"


def ask(
    server: Served, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def question(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,kingpole-timeout-us",
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path, "plus", PLUS)
    return tmp_path


def test_without_the_flag_no_page_is_told_anything(start: Callable[..., Served], repository: Path) -> None:
    server = start(repository)
    for method, path in (("OPTIONS", FRAMES), ("OPTIONS", "/v2/models/plus/infer"), ("GET", "/v2")):
        _, headers = ask(server, method, path, question(PAGE))
        assert not [name for name in headers if name.startswith("access-control")], (method, path)


def test_pages_of_a_listed_origin_may_call(start: Callable[..., Served], repository: Path) -> None:
    server = start("--cors-origin", PAGE, "--cors-origin", "http://localhost:3000", repository)
    for path in (FRAMES, "/v2/models/plus/infer", "/plus", "/v1/models/plus:predict"):
        status, headers = ask(server, "OPTIONS", path, question(PAGE))
        assert status == 204
        assert headers["access-control-allow-origin"] == PAGE
        assert headers["access-control-allow-headers"] == "content-type,kingpole-timeout-us"
        assert "POST" in headers["access-control-allow-methods"]
        assert headers["vary"] == "Origin"
        status, headers = ask(server, "OPTIONS", path, question("https://other.example"))
        assert status == 403
        assert "access-control-allow-origin" not in headers
    status, headers = ask(server, "GET", "/v2", {"Origin": PAGE})
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert "Inference-Header-Content-Length" in headers["access-control-expose-headers"]
    # Errors too: a page that may call may read why it failed.
    frames = {"Origin": PAGE, "Content-Type": "application/x-kingpole"}
    for path, body, said in (("/v2/models/absent", None, {"Origin": PAGE}), (FRAMES, b"no frame", frames)):
        status, headers = ask(server, "POST" if body else "GET", path, said, body)
        assert status in (400, 404)
        assert headers["access-control-allow-origin"] == PAGE
    # Also what a page of nobody's is told is not to be kept for others.
    headers = ask(server, "GET", "/v2", {})[1]
    assert ("access-control-allow-origin" in headers, headers["vary"]) == (False, "Origin")


def test_any_origin(start: Callable[..., Served], repository: Path) -> None:
    server = start("--cors-origin", "*", repository)
    assert ask(server, "OPTIONS", FRAMES, question("null"))[1]["access-control-allow-origin"] == "*"


def test_what_is_no_origin_is_refused_at_the_start(repository: Path) -> None:
    said = refused_at_the_start("--cors-origin", "page.example", repository)
    assert "cors_origin: 'page.example' is no origin" in said
