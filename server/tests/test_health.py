"""`kingpole health` against servers that answer as they are told, and against a real one."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from kingpole.cli import FAILURE, SUCCESS, CommandError, main
from kingpole.cli.health import health
from served_process import PLUS, Served, needs_core, start, write_model

__all__ = ["start"]


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Start a server that gives one answer to everything."""
    servers: list[socketserver.BaseServer] = []

    def begin(status: int, path: Path | None = None) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code = status if self.path == "/v2/health/ready" else 404
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                pass

        if path is None:
            server: socketserver.BaseServer = socketserver.TCPServer(("127.0.0.1", 0), Answer)
            url = f"http://127.0.0.1:{server.server_address[1]}"
        else:
            server = socketserver.UnixStreamServer(str(path), Answer)
            url = f"unix:{path}"
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return url

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, SUCCESS), (503, FAILURE), (400, FAILURE)])
def test_the_exit_code_says_whether_the_server_is_ready(
    answering: Callable[..., str], status: int, code: int
) -> None:
    assert health(answering(status)) == code


def test_a_unix_socket_is_asked_as_well(answering: Callable[..., str], tmp_path: Path) -> None:
    assert health(answering(200, path=tmp_path / "socket")) == SUCCESS


def test_the_environment_names_the_server(
    answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINGPOLE_URL", answering(200))
    assert main(["health"]) == SUCCESS


def test_another_answer_is_told_with_its_status(answering: Callable[..., str]) -> None:
    with pytest.raises(CommandError, match="neither ready nor not ready: HTTP status 401 Unauthorized"):
        health(answering(401))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "it has no host"),
        ("http://localhost:port", "cannot be read"),
        ("unix:", "it has no path"),
        ("http://me@localhost", "no user, query or fragment"),
        ("unix:/nowhere/socket", "no answer from unix:/nowhere/socket: .*No such file"),
        ("gopher://localhost", "gopher"),
    ],
)
def test_an_address_that_cannot_be_asked_is_named_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        health(url)


def test_what_is_no_http_is_no_answer(tmp_path: Path) -> None:
    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"220 mail.example ESMTP\r\n")

    with socketserver.UnixStreamServer(str(tmp_path / "socket"), Greeting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(CommandError, match="no answer from unix:"):
            health(f"unix:{tmp_path / 'socket'}")
        server.shutdown()


def test_a_health_check_imports_neither_the_client_nor_numpy() -> None:
    program = (
        "import sys; from kingpole.cli import main\n"
        "main(['health', '--url', 'unix:/nowhere/socket'])\n"
        "slow = {'numpy', 'kingpole_client', 'aiohttp', 'msgspec', 'yaml', 'http.client', 'ssl'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n", said.stdout
    assert (
        said.stderr == "kingpole: no answer from unix:/nowhere/socket: [Errno 2] No such file or directory\n"
    )


@needs_core
def test_a_real_server_is_asked_over_http_and_over_a_unix_socket(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path / "models", "plus", PLUS)
    served = start(tmp_path / "models", "--listen", f"unix:{tmp_path}/socket")
    assert health(served.url) == SUCCESS
    assert health(f"unix:{tmp_path}/socket") == SUCCESS
