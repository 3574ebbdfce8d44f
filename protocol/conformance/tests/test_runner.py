"""The runner believes no program: tiny ones that lie, hang or are not there, and what becomes of them."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import pytest
from kingpole_client import InferResponse, KingpoleError, _messages
from kingpole_client._frame import split_frame

from protocol.conformance import cases, main
from protocol.conformance.encodings import check_encodings, wanted
from protocol.conformance.lies import CUTS, LIES, response_frame
from protocol.conformance.programs import State, run_program

needs_core = pytest.mark.skipif(
    importlib.util.find_spec("kingpole._core") is None, reason="kingpole._core is not built"
)


def write_client(
    clients: Path, name: str, conformance: str, toolchain: str = "true", setup: str = "true"
) -> None:
    """Write a client's common entry: what it does for a case, and before."""
    directory = clients / name
    directory.mkdir(parents=True)
    program = directory / "run"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$1 $2" in\n"toolchain ") {toolchain} ;;\n"setup ") {setup} ;;\n'
        f'"conformance transports") echo unix ;;\n*) {conformance} ;;\nesac\n'
    )
    program.chmod(0o755)


def run(clients: Path, *arguments: str) -> tuple[int, dict[tuple[str, str], tuple[str, str]]]:
    """Run the runner; returns its status and each outcome, by language and case."""
    out = clients / "results.json"
    status = main.main([*arguments, "--json", str(out)], clients)
    rows = json.loads(out.read_text())["results"]
    return status, {(row["language"], row["case"]): (row["state"], row["reason"]) for row in rows}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "_ASIDE_S", 0.3)


@needs_core
def test_a_program_that_fails_or_does_not_apply_is_shown_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_client(tmp_path, "broken", "echo expected 1, got 2; exit 1")
    write_client(tmp_path, "elsewhere", "echo this language has no numbers; exit 77")
    status, outcomes = run(tmp_path, "--case", "server")
    assert status == 1
    state, reason = outcomes["broken", "server"]
    assert (state, reason.splitlines()) == ("failed", ["status 1:", "expected 1, got 2"])
    assert outcomes["elsewhere", "server"] == ("not_applicable", "this language has no numbers")
    shown = capsys.readouterr().out
    assert "FAILED unix" in shown
    assert "elsewhere server (unix): this language has no numbers" in shown
    assert run(tmp_path, "elsewhere", "--case", "server")[0] == 0


@needs_core
def test_a_case_that_passes_only_when_it_is_tried_again_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_client(
        tmp_path, "moody", f"[ -e {tmp_path}/seen ] && exit 0; touch {tmp_path}/seen; echo not now; exit 1"
    )
    status, outcomes = run(tmp_path, "--case", "server", "--tries", "2")
    assert (status, outcomes["moody", "server"]) == (0, ("ok", "only when tried again: not now"))
    assert "moody server (unix): only when tried again: not now" in capsys.readouterr().out


@needs_core
def test_a_program_that_says_all_is_well_is_not_believed(tmp_path: Path) -> None:
    write_client(tmp_path, "liar", "exit 0")
    checked = ("cancel", "stream", "killed", "shared-memory", "encode")
    status, outcomes = run(tmp_path, *(word for case in checked for word in ("--case", case)))
    assert status == 1
    states = {case: outcomes["liar", case][0] for case in checked}
    assert states == dict.fromkeys(checked, "failed")
    assert "had not counted a request as cancelled" in outcomes["liar", "cancel"][1]
    assert "was not told that its reader had left" in outcomes["liar", "stream"][1]
    assert "expected 'waiting' and then 'lost'" in outcomes["liar", "killed"][1]
    assert outcomes["liar", "shared-memory"][1].startswith("0 bytes")
    assert "frame-request-bf16.bin is not there" in outcomes["liar", "encode"][1]


@needs_core
def test_a_model_that_was_not_stopped_is_seen(tmp_path: Path) -> None:
    # The third argument of the case is where the model would write how far it came.
    write_client(tmp_path, "patient", 'printf 999999 > "$4"')
    _, outcomes = run(tmp_path, "--case", "stream")
    assert "the model counted to '999999'" in outcomes["patient", "stream"][1]


@needs_core
def test_a_program_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "CASE_LIMIT_S", 0.5)
    write_client(tmp_path, "slow", "echo still here; sleep 1000 & sleep 1000")
    started = time.monotonic()
    status, outcomes = run(tmp_path, "--case", "server")
    assert status == 1
    assert time.monotonic() - started < 60
    assert outcomes["slow", "server"] == ("failed", "not at its end after 0.5 s:\nstill here")


def test_a_missing_toolchain_is_a_failure_only_where_it_is_required(tmp_path: Path) -> None:
    write_client(tmp_path, "exotic", "exit 1", toolchain="echo missing: exoticc; exit 77")
    status, outcomes = run(tmp_path, "--case", "server")
    assert (status, outcomes["exotic", "server"]) == (0, ("no_toolchain", "missing: exoticc"))
    assert run(tmp_path, "--case", "server", "--require")[0] == 1


def test_a_client_that_cannot_be_set_up_has_failed_every_case(tmp_path: Path) -> None:
    write_client(tmp_path, "unbuilt", "exit 0", setup="echo no such package; exit 3")
    status, outcomes = run(tmp_path)
    assert status == 1
    assert {state for state, _ in outcomes.values()} == {"failed"}
    assert len(outcomes) == len(cases.CASES)
    assert outcomes["unbuilt", "large"][1] == "run setup: status 3:\nno such package"


def test_transports_that_nobody_knows_are_a_failure(tmp_path: Path) -> None:
    write_client(tmp_path, "odd", "exit 0")
    program = tmp_path / "odd" / "run"
    program.write_text(program.read_text().replace("echo unix", "echo http pigeon"))
    status, outcomes = run(tmp_path, "--case", "server")
    assert status == 1
    assert "'pigeon' is none of http grpc frame unix" in outcomes["odd", "server"][1]


def test_only_folders_with_the_common_entry_are_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cobol").mkdir()
    assert main.languages(tmp_path) == []
    assert main.main(["cobol"], tmp_path) == 2
    assert "no client cobol" in capsys.readouterr().err


def test_lines_are_heard_as_they_come_and_status_is_what_it_is(tmp_path: Path) -> None:
    heard: list[str] = []
    ended = run_program(["sh", "-c", "echo one; echo two >&2; kill -9 $$"], 20, heard.append)
    assert heard == ["one", "two"]
    assert ended.outcome().state is State.FAILED
    assert ended.outcome().reason.startswith("killed by signal 9")


@pytest.mark.parametrize("lie", [*LIES, *CUTS], ids=lambda lie: lie.name)
def test_every_lie_is_one(lie) -> None:
    try:
        frame = split_frame(memoryview(lie.make(7)), 16 << 20)
        answer = _messages.decode_answer(frame)
    except KingpoleError:
        return
    honest = isinstance(answer, InferResponse) and answer.stage == "only"
    assert not honest or lie.on_streams_only


def test_what_is_not_a_lie_is_a_good_answer() -> None:
    answer = _messages.decode_answer(split_frame(memoryview(response_frame(7))))
    assert isinstance(answer, InferResponse)
    assert answer["x"].tolist() == [[1, 2, 3, 4]]


def test_encodings_are_compared_with_the_vectors(tmp_path: Path) -> None:
    values = wanted(cases.VECTORS)
    assert len(values) > 15
    for name in values:
        vector = json.loads((cases.VECTORS / f"{name}.json").read_text())
        (tmp_path / f"{name}.bin").write_bytes(bytes.fromhex(vector["hex"]))
    assert check_encodings(cases.VECTORS, tmp_path) == []
    other = tmp_path / "frame-request-int8.bin"
    other.write_bytes((tmp_path / "frame-request-uint8.bin").read_bytes())
    (tmp_path / "frame-request-fp32.bin").write_bytes(b"KINGPOL")
    problems = check_encodings(cases.VECTORS, tmp_path)
    said = sorted(" ".join(problem.split()[:4]) for problem in problems)
    assert said == [
        f"frame-request-{name}: the {codec} codec"
        for name in ("fp32", "int8")
        for codec in ("Python", "Rust")
    ]
