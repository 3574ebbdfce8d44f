"""Other people's real clients infer against the running server.

Each program runs in a process and an environment of its own, once, and reports on each of its
cases; here each case is a test.
"""

from __future__ import annotations

import ast
import json
import subprocess
from functools import cache
from pathlib import Path

import pytest
from running import Running

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = Path(__file__).parents[3] / ".cache" / "clients"
SETUP = "server/tests/clients/setup"

# The program and the environment that it runs in.
CLIENTS = {
    "graphpipe_client": "graphpipe",
    "tritonclient_http": "tritonclient",
    "tritonclient_grpc": "tritonclient",
    "tritonclient_shared_memory": "tritonclient",
    "tritonclient_stream": "tritonclient",
    "tritonclient_everything": "tritonclient",
    "tritonclient_repository": "tritonclient",
    "tritonclient_surface": "tritonclient",
    "tritonclient_tensors": "tritonclient",
    "seldon_agent": "tritonclient",
    "seldon_executor": "tritonclient",
    "kserve_client": "kserve",
    "tensorflow_serving_client": "migration",
    "mlflow_client": "migration",
    "sagemaker_client": "migration",
}
# These load and unload models, which the others must not meet.
CONTROLLING = {"tritonclient_repository", "tritonclient_surface", "seldon_agent"}
_SECONDS = 100


def cases(program: str) -> list[str]:
    """The names of a program's cases, read without importing what it imports."""
    tree = ast.parse((PROGRAMS / f"{program}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [function.name for function in functions if function.name.startswith("test_")]


@cache
def outcome(program: str, address: str) -> tuple[dict[str, str | None], str]:
    """Run a program once: what each case raised, and what else the program said."""
    python = ENVIRONMENTS / CLIENTS[program] / "bin" / "python"
    command = [str(python), str(PROGRAMS / f"{program}.py"), address]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        lines, said = ended.stdout, f"exit code {ended.returncode}\n{ended.stderr}"
    except subprocess.TimeoutExpired as error:
        lines = bytes(error.stdout or b"").decode()
        said = f"did not end within {_SECONDS} s\n{bytes(error.stderr or b'').decode(errors='replace')}"
    report = [json.loads(line) for line in lines.splitlines() if line.endswith("}")]
    return {each["case"]: each["error"] for each in report}, said


@pytest.mark.parametrize(
    ("program", "case"),
    [
        pytest.param(program, case, id=f"{program}-{case.removeprefix('test_')}")
        for program in CLIENTS
        for case in cases(program)
    ],
)
def test_the_real_client_is_served(request: pytest.FixtureRequest, program: str, case: str) -> None:
    if not (ENVIRONMENTS / CLIENTS[program] / ".installed").exists():
        pytest.skip(f"the environment of {CLIENTS[program]} is missing; make it with {SETUP}")
    server: Running = request.getfixturevalue("controlled" if program in CONTROLLING else "server")
    failures, said = outcome(program, server.address)
    assert case in failures, f"{program} did not come as far as this case: {said}"
    assert failures[case] is None, f"{failures[case]}\n{said[-4000:]}"
    assert server.process.poll() is None, "the server ended:\n" + "\n".join(server.log)
