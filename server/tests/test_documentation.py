"""What the documentation shows is run as it stands: files are written, commands and programs must succeed.

A block says its language. `text` is only shown; a block whose first line is `# models/...` is that file; `sh`
and `python` are run in order, beside a server on `models/`. What cannot be run here says why in the line
before it: `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_models
import pytest
from served_process import Served

ROOT = Path(__file__).parents[2]
HOWTO = sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/howto/*.md"))
DOCUMENTS = ("README.md", "clients/python/README.md", *HOWTO)
DEMO = ROOT / ".cache" / "demo"
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
# A command that got an answer from the server has not succeeded if the answer is an error.
_CURL = 'curl() { command curl --fail-with-body --silent --show-error --max-time 30 "$@"; }\n'
_DIGITS = """
import numpy as np
INPUTS = [("image", "FP32", [-1, 28, 28])]
OUTPUTS = [("scores", "FP32", [-1, 10])]
def infer(image):
    return np.zeros((len(image), 10), np.float32)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    reason: str | None
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["text"], found["reason"], text[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(text)
    ]


def prepare_readme(directory: Path) -> str:
    if not DEMO.is_dir():
        pytest.skip("the demo's model is missing; make it with: make setup")
    shutil.copytree(DEMO, directory / "models")
    return "efficientnet-lite0"


def prepare_client(directory: Path) -> str:
    (directory / "models" / "digits").mkdir(parents=True)
    (directory / "models" / "digits" / "model.py").write_text(_DIGITS)
    return "digits"


def prepare_models(directory: Path) -> str:
    import numpy as np

    for version in ("1", "2"):
        onnx_models.doubling(directory / "models" / "double" / version / "model.onnx")
    np.save(directory / "array.npy", np.ones((1, 4), np.float32))
    return "double"


def prepare_python_model(directory: Path) -> str:
    import numpy as np

    (directory / "models" / "linear").mkdir(parents=True)
    np.save(directory / "models" / "linear" / "weights.npy", np.ones((4, 2), np.float32))
    return "double"


_PREPARE: dict[str, Callable[[Path], str]] = {
    "README.md": prepare_readme,
    "clients/python/README.md": prepare_client,
    "docs/howto/python-model.md": prepare_python_model,
}


class Session:
    """One reader who follows a document from top to bottom."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.served: Served | None = None

    def write(self, block: Block) -> None:
        file = self.directory / re.sub(r"\bNAME\b", self.name, block.text.splitlines()[0].removeprefix("# "))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)

    def run(self, block: Block) -> None:
        if block.language == "python":
            self.succeed(block, [sys.executable, "-c", self.localized(block.text)])
            return
        for line in block.text.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["kingpole", "serve"]:
                self.serve(*words[2:])
            elif words:
                self.succeed(block, ["bash", "-euc", _CURL + self.localized(line)])

    def serve(self, *arguments: str) -> Served:
        self.end()
        paths = [str(self.directory / word) if word.startswith("models") else word for word in arguments]
        self.served = Served(*paths)
        assert self.served.lines[-1].split(",")[0] == "ready", "\n".join(self.served.lines)
        return self.served

    def localized(self, text: str) -> str:
        """The text for this test's server and model in place of the reader's."""
        served = self.served or self.serve("models/")
        text = text.replace("localhost:8000", served.url.removeprefix("http://"))
        text = text.replace("localhost:8002", served.management.removeprefix("http://"))
        return re.sub(r"\bNAME\b", self.name, text)

    def succeed(self, block: Block, command: list[str]) -> None:
        assert self.served
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "KINGPOLE_URL": self.served.url}
        ended = subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = f"{ended.stdout}{ended.stderr}"
        assert ended.returncode == 0, f"the block in line {block.line}: {command[-1]}\n{said}"

    def end(self) -> None:
        if self.served:
            self.served.end()
            self.served = None


@contextlib.contextmanager
def session(directory: Path, document: str) -> Iterator[Session]:
    reader = Session(directory, _PREPARE.get(document, prepare_models)(directory))
    try:
        yield reader
    finally:
        reader.end()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_shows_can_be_done(tmp_path: Path, document: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shown = blocks(ROOT / document)
    for block in shown:
        assert block.language, f"{document}:{block.line}: say the block's language, or text if it is none"
    real = [block for block in shown if block.reason is None and block.language != "text"]
    files = [block for block in real if block.text.startswith("# models/")]
    with session(tmp_path, document) as reader:
        for block in files:
            reader.write(block)
        for block in real:
            if block not in files:
                assert block.language in ("sh", "python"), (
                    f"{document}:{block.line}: {block.language} is not run"
                )
                reader.run(block)
        # A document of files alone is right if they can be served.
        reader.localized("")
