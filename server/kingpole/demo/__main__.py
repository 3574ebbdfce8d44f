"""`python -m kingpole.demo REPOSITORY`: start the server, ask it over every core protocol, stop it."""

import argparse
import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kingpole.demo import asking, picture

START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
ASKS = 10
URL = re.compile(r"http://([\d.]+:\d+)")

NEXT = """
What to try next:
  make serve                         the same server, kept running on port 8000
  curl localhost:8000/v2/models/{model}
  .venv/bin/kingpole infer {model} --input image=@{path} \
      --labels {labels}
  .venv/bin/kingpole serve DIRECTORY   your own model.onnx or model.py (docs/howto/)
"""


class NotStartedError(Exception):
    """The server ended, or did not become ready in time; carries what it said."""


class ServerOutput:
    """Reads what a server prints: keeps the lines and tells once its address is known and it is ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""
        self.ready = False
        self.settled = threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        """Read until the server closes its output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = URL.search(line)
            if found and not self.address and "management" not in line.lower():
                self.address = found[1]
            if line.startswith(("ready", "not ready")):
                self.ready = line.startswith("ready")
                self.settled.set()
        self.settled.set()

    def wait(self) -> str:
        """Return the server's address once it is ready.

        Raises:
            NotStartedError: It ended instead, or took longer than `START_LIMIT_S`.
        """
        if not self.settled.wait(START_LIMIT_S) or not self.ready or not self.address:
            raise NotStartedError("".join(self.lines) or "the server printed nothing")
        return self.address


@contextlib.contextmanager
def running_server(repository: Path) -> Iterator[str]:
    """Run `kingpole serve` on ports of the system's choice; yields its address, stops it at the end."""
    command = [sys.executable, "-m", "kingpole", "serve", str(repository)]
    command += ["--listen", "127.0.0.1:0", "--management", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = ServerOutput(process)
    try:
        yield output.wait()
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.thread.join(STOP_LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()


def main(arguments: list[str] | None = None) -> int:
    """Ask the demo model what is in the picture, over every core protocol."""
    parser = argparse.ArgumentParser(prog="python -m kingpole.demo", description=main.__doc__)
    parser.add_argument(
        "repository", type=Path, help="the repository that `make setup` converted the model into"
    )
    repository: Path = parser.parse_args(arguments).repository

    path = picture.coffee()
    pixels = picture.pixels(path)
    print(f"The picture: {path.name}, {pixels.nbytes:,} bytes of RGB")
    started = time.monotonic()
    failures = 0
    try:
        with running_server(repository) as address:
            print(f"The server:  http://{address}, ready after {time.monotonic() - started:.2f} s\n")
            for asker in asking.ASKERS:
                failures += not show(asker, address, pixels)
            stopping = time.monotonic()
    except NotStartedError as reason:
        print(f"the server did not start:\n{reason}", file=sys.stderr)
        return 1
    print(f"\nThe server stopped in {time.monotonic() - stopping:.2f} s.")
    if failures:
        return 1
    labels = Path(__file__).with_name("labels.txt")
    print(NEXT.format(model=asking.MODEL, path=path, labels=labels))
    return 0


def show(asker: "type[asking.Asker]", address: str, pixels: asking.Pixels) -> bool:
    """Ask over one protocol and print the answer with its times; returns whether it was an answer."""
    with contextlib.closing(asker(address)) as open_asker:
        times_ms = []
        probabilities = None
        try:
            for _ in range(ASKS):
                before = time.perf_counter()
                probabilities = open_asker.ask(pixels)
                times_ms.append((time.perf_counter() - before) * 1e3)
        except (asking.UnexpectedError, OSError) as error:
            print(f"  {asker.name:<22} failed: {error}")
            return False
    assert probabilities is not None
    guess = picture.best(probabilities)
    first, rest = times_ms[0], sorted(times_ms[1:])
    median = rest[len(rest) // 2]
    print(
        f"  {asker.name:<22} {guess.label} {guess.probability:.0%}"
        f"   first {first:6.1f} ms, then {median:5.1f} ms (median of {len(rest)})"
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
