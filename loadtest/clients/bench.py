"""Runs `run bench` of every client against one server and writes one table.

    python -m loadtest.clients.bench --rounds 5

In each round every client is measured once over each transport, alone; server and client each have a core if
there are two. Triton's Python client is measured as well, if it is installed (server/tests/clients/setup).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest import machine
from loadtest.clients.table import OutputError, Sample, as_json, markdown, parse
from loadtest.processes import REPOSITORY_ROOT, Launch, RunningServer, ServerFailedError, free_port

MODEL = REPOSITORY_ROOT / "protocol" / "conformance" / "models" / "echo-fp32"
CLIENTS = REPOSITORY_ROOT / "clients"
TRITON_PYTHON = REPOSITORY_ROOT / ".cache" / "clients" / "tritonclient" / "bin" / "python"
TRANSPORTS = ("grpc", "http")
_SETUP_LIMIT_S = 1200
_BENCH_LIMIT_S = 600


def usable(chosen: Sequence[str]) -> tuple[list[str], list[str]]:
    """Set the clients up; returns those that can be measured, and why the others cannot."""
    names = chosen or sorted(path.parent.name for path in CLIENTS.glob("*/run"))
    able, problems = [], []
    for name in names:
        for step in ("toolchain", "setup"):
            ended = _run([CLIENTS / name / "run", step], _SETUP_LIMIT_S)
            if ended.returncode:
                problems.append(
                    f"{name}: run {step} ended with {ended.returncode}: {ended.stdout[-300:].strip()}"
                )
                break
        else:
            able.append(name)
    return able, problems


def _run(command: Sequence[str | Path], limit_s: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=limit_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"not at its end after {limit_s} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, str(error))


def measure(name: str, url: str, round_: int, core: int | None) -> list[Sample]:
    """Measure one client over one transport.

    Raises:
        OutputError: It failed, or printed something else than rows.
    """
    transport = url.partition(":")[0]
    command: list[str | Path] = [CLIENTS / name / "run", "bench", url]
    if name == "tritonclient":
        command = [TRITON_PYTHON, Path(__file__).parent / "triton_client.py", url]
    pin = [] if core is None else ["taskset", "-c", str(core)]
    ended = _run([*pin, *command], _BENCH_LIMIT_S)
    if ended.returncode:
        raise OutputError(
            f"{name} over {transport}: status {ended.returncode}: {ended.stdout[-600:].strip()}"
        )
    # Triton's client stands beside ours of the same language.
    language = "python" if name == "tritonclient" else name
    return parse(language, transport, round_, ended.stdout.splitlines())


def run_rounds(
    names: Sequence[str], authority: str, rounds: int, core: int | None, problems: list[str]
) -> list[Sample]:
    """Measure everything; what fails is noted, and left out from then on."""
    samples: list[Sample] = []
    broken: set[tuple[str, str]] = set()
    for round_ in range(1, rounds + 1):
        for transport in TRANSPORTS:
            for name in names:
                if (name, transport) in broken:
                    continue
                try:
                    measured = measure(name, f"{transport}://{authority}", round_, core)
                except OutputError as error:
                    problems.append(" ".join(str(error).split()))
                    broken.add((name, transport))
                    continue
                samples += measured
                shown = ", ".join(f"{s.contender} {s.bytes:,} B {s.cpu_us:,.0f} µs" for s in measured)
                print(f"round {round_}, {transport}, {name}: {shown}", flush=True)
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 1 when a client could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.clients.bench", description="Cost of the clients."
    )
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="folders of clients/; all if none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=REPOSITORY_ROOT / "docs" / "results" / "clients")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    names, problems = usable(options.languages)
    if "python" in names:
        if TRITON_PYTHON.exists():
            names.append("tritonclient")
        else:
            problems.append("tritonclient is not installed: server/tests/clients/setup")
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    environment = machine.describe(given, server_core, client_core)
    environment["command"] = " ".join(["python -m loadtest.clients.bench", *given])
    environment.pop("versions")
    port = free_port()
    command = [sys.executable, "-m", "kingpole", "serve", str(MODEL), "--management", "off"]
    command += ["--listen", f"127.0.0.1:{port}", "--reactors", "1"]
    with tempfile.TemporaryDirectory(prefix="kingpole-bench-") as folder:
        launch = Launch(command, {}, port, "/v2/health/ready")
        try:
            with RunningServer(launch, server_core, Path(folder) / "log"):
                samples = run_rounds(names, f"127.0.0.1:{port}", options.rounds, client_core, problems)
        except ServerFailedError as error:
            print(error, file=sys.stderr)
            return 1
    _write(environment, samples, problems, options.out)
    return 1 if problems else 0


def _write(environment: dict[str, str], samples: list[Sample], problems: list[str], out: Path) -> None:
    page = "# Clients\n\n" + "".join(f"- {key}: {value}\n" for key, value in environment.items())
    page += (
        "\nOne request at a time to a model that gives back what it gets. CPU is that of the client's process"
        "\nper request, user and system. Each value is the median of the rounds (least-greatest); ratios are"
        "\nof CPU times in the same round.\n"
        "`stubs`: the language's generated gRPC stubs of Open Inference; `floor`: the same bytes by the bare"
        "\ntransport.\n"
    )
    page += markdown(samples)
    if problems:
        page += "\n## Not measured\n\n" + "".join(f"- {problem}\n" for problem in problems)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(page)
    (out / "results.json").write_text(as_json(environment, samples, problems))
    print(page)
    print(f"wrote {out}/results.md and results.json")


if __name__ == "__main__":
    sys.exit(main())
