"""The cases: over which transports each is run, with which server, and what is checked from outside.

What must be is written in README.md, and is checked by each client's program; here is what the program
cannot do itself, such as killing the server. Knows no language.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trustme

from protocol.conformance.counting import CountingSocket
from protocol.conformance.elsewhere import Elsewhere
from protocol.conformance.encodings import check_encodings
from protocol.conformance.hostile import hostile_server
from protocol.conformance.programs import OK, Ended, Outcome, State, failed, run_program
from protocol.conformance.servers import ROOT, Server, await_path

TRANSPORTS = ("http", "grpc", "frame", "unix")
CASE_LIMIT_S = 120.0
_ASIDE_S = 10.0
# Of 640 MiB. An answer whose size the client does not know beforehand may come through the socket, once.
_MOST_PASSED_BYTES = 32 << 20
VECTORS = ROOT / "protocol" / "vectors"


class Surroundings:
    """The servers of one language, each started when it is first needed."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._folder = tempfile.TemporaryDirectory(prefix="kingpole-conformance-")
        self._servers: dict[str, Server] = {}

    def __enter__(self) -> Surroundings:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.kill()
        self._folder.cleanup()

    def directory(self, name: str) -> Path:
        """Return a folder of that name, made if it is not there."""
        made = Path(self._folder.name) / name
        made.mkdir(exist_ok=True)
        return made

    def server(self) -> Server:
        """Return the server that lives through all cases."""
        return self._server("lasting")

    def mortal(self) -> Server:
        """Return the one that is killed."""
        return self._server("mortal")

    def secured(self) -> tuple[Server, Path]:
        """Return the one that speaks TLS, and the file of its authority."""
        directory = self.directory("secured")
        pem = directory / "authority.pem"
        if not pem.exists():
            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1", "localhost")
            pem.write_bytes(authority.cert_pem.bytes())
            (directory / "key.pem").write_bytes(certificate.private_key_pem.bytes())
            chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
            (directory / "chain.pem").write_bytes(chain)
        arguments = ("--tls-certificate", f"{directory}/chain.pem", "--tls-key", f"{directory}/key.pem")
        return self._server("secured", arguments, "s"), pem

    def _server(self, name: str, arguments: tuple[str, ...] = (), scheme_suffix: str = "") -> Server:
        if name not in self._servers:
            self._servers[name] = Server(self.directory(name), arguments, scheme_suffix)
        return self._servers[name]

    def run(self, *arguments: str | Path, on_line: Callable[[str], None] | None = None) -> Ended:
        """Run the client's conformance program."""
        return run_program([self.program, "conformance", *arguments], CASE_LIMIT_S, on_line)


class Case(NamedTuple):
    """One row of the table."""

    name: str
    transports: tuple[str, ...]
    check: Callable[[Surroundings, str, str], Outcome]
    """Given the surroundings, the client's kind (a prefix of URLs, or nothing) and the transport."""


def _plain(name: str) -> Callable[[Surroundings, str, str], Outcome]:
    def check(around: Surroundings, kind: str, transport: str) -> Outcome:
        return around.run(name, kind + around.server().url(transport)).outcome()

    return check


def _cancel(around: Surroundings, kind: str, transport: str) -> Outcome:
    """Tell the program once the server has counted its request as cancelled."""
    server = around.server()
    heard = _fresh(around, f"cancel-{kind}{transport}")
    before, ended = server.cancelled(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            if server.cancelled() > before:
                heard.touch()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        outcome = around.run("cancel", kind + server.url(transport), heard).outcome()
    finally:
        ended.set()
        watching.join()
    if outcome.state is State.OK and not heard.exists():
        return failed("the program ended well, but the server had not counted a request as cancelled")
    return outcome


def _stream(around: Surroundings, kind: str, transport: str) -> Outcome:
    """Look at what the model wrote when its reader left."""
    mark = _fresh(around, f"stream-{kind}{transport}")
    outcome = around.run("stream", kind + around.server().url(transport), mark).outcome()
    if outcome.state is not State.OK:
        return outcome
    if not await_path(mark, _ASIDE_S):
        return failed("the program ended well, but the model was not told that its reader had left")
    value = mark.read_text()
    if not value.isdigit() or int(value) >= 999_999:
        return failed(f"the model counted to {value!r}: its reader had left after 2 of 1000000")
    return OK


def _fresh(around: Surroundings, name: str) -> Path:
    path = around.directory("marks") / name
    path.unlink(missing_ok=True)
    return path


def _killed(around: Surroundings, kind: str, transport: str) -> Outcome:
    """Kill the server when the program waits, and start it again when the program has noticed."""
    server = around.mortal()
    said: list[str] = []

    def on_line(line: str) -> None:
        word = line.strip()
        if word == "waiting" and not said:
            said.append(word)
            server.kill()
        elif word == "lost" and said == ["waiting"]:
            said.append(word)
            server.start()

    try:
        outcome = around.run("killed", kind + server.url(transport), on_line=on_line).outcome()
    finally:
        if said == ["waiting"]:
            server.start()
    if outcome.state is State.OK and said != ["waiting", "lost"]:
        return failed(f"the program ended well and said {said}, expected 'waiting' and then 'lost'")
    return outcome


def _hostile(around: Surroundings, kind: str, transport: str) -> Outcome:
    server = hostile_server(transport, around.directory("hostile"))
    try:
        return around.run("hostile", kind + server.url).outcome()
    finally:
        server.close()


def _open_inference(around: Surroundings, kind: str, _transport: str) -> Outcome:
    server = Elsewhere(around.server().authority)
    try:
        return around.run("open-inference", kind + server.url).outcome()
    finally:
        server.close()


def _tls(around: Surroundings, kind: str, transport: str) -> Outcome:
    server, pem = around.secured()
    return around.run("tls", kind + server.url(transport), pem).outcome()


def _shared_memory(around: Surroundings, kind: str, _transport: str) -> Outcome:
    """Count what goes through the socket: the program cannot see that from inside."""
    behind = around.server().url("unix").removeprefix("unix:")
    between = CountingSocket(around.directory("counting") / "socket", behind)
    try:
        outcome = around.run("shared-memory", f"{kind}unix:{between.path}").outcome()
    finally:
        between.close()
    if outcome.state is State.OK and not 0 < between.passed_bytes < _MOST_PASSED_BYTES:
        return failed(f"{between.passed_bytes} bytes went through the socket, expected less than 32 MiB")
    return outcome


def _encode(around: Surroundings, _kind: str, _transport: str) -> Outcome:
    out = around.directory("encoded")
    outcome = around.run("encode", VECTORS, out).outcome()
    if outcome.state is not State.OK:
        return outcome
    problems = check_encodings(VECTORS, out)
    return failed("\n".join(problems)) if problems else OK


NO_TRANSPORT = "codec"
"""In place of a transport, for what is about bytes alone."""

CASES = (
    *(Case(name, TRANSPORTS, _plain(name)) for name in ("server", "datatypes", "shapes", "parameters")),
    *(Case(name, TRANSPORTS, _plain(name)) for name in ("errors", "deadline")),
    Case("cancel", TRANSPORTS, _cancel),
    Case("stream", TRANSPORTS, _stream),
    *(Case(name, TRANSPORTS, _plain(name)) for name in ("sequence", "pipeline", "large")),
    Case("killed", TRANSPORTS, _killed),
    Case("hostile", TRANSPORTS, _hostile),
    Case("open-inference", ("http",), _open_inference),
    Case("tls", ("http", "grpc"), _tls),
    Case("token", ("http", "grpc"), _plain("token")),
    Case("shared-memory", ("unix",), _shared_memory),
    Case("encode", (NO_TRANSPORT,), _encode),
)  # fmt: skip
