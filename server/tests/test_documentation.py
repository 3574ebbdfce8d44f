"""What the documentation shows is run as it stands: files are written, commands and programs must succeed.

A block says its language. `text` is only shown; a block whose first line is `# models/...` is that file;
`sh` and `python` are run in order, beside a server on `models/`. A block `output` is what the last command of
the one before it printed, `json` the same compared as JSON: there a refusal is an answer like any other. What
cannot be run here says why in the line before it: `<!-- not run: the reason -->`.

The pages of protocol/spec begin where their overview ends: with its models and its server.
"""

from __future__ import annotations

import contextlib
import json
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
OVERVIEW = "protocol/spec/overview.md"
SPECIFICATION = sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("protocol/spec/*.md"))
DOCUMENTS = ("README.md", "clients/python/README.md", *HOWTO, *SPECIFICATION)
ANSWERS = ("output", "json")
DEMO = ROOT / ".cache" / "demo"
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
# A command that got an answer from the server has not succeeded if the answer is an error.
_CURL = 'curl() {{ command curl {options}--silent --show-error --max-time 30 "$@"; }}\n'
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


def prepare_specification(directory: Path) -> str:
    (directory / "models").mkdir()
    (directory / "protocol").symlink_to(ROOT / "protocol")
    return "double"


_PREPARE: dict[str, Callable[[Path], str]] = {
    "README.md": prepare_readme,
    "clients/python/README.md": prepare_client,
    "docs/howto/python-model.md": prepare_python_model,
    **dict.fromkeys(SPECIFICATION, prepare_specification),
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

    def follow(self, shown: list[Block]) -> None:
        """Do what blocks show, and see that it answers what they say."""
        real = [block for block in shown if block.reason is None and block.language != "text"]
        files = [block for block in real if block.text.startswith("# models/")]
        for block in files:
            self.write(block)
        steps = [block for block in real if block not in files]
        for block, after in zip(steps, [*steps[1:], None], strict=True):
            if block.language in ANSWERS:
                continue
            answer = after if after is not None and after.language in ANSWERS else None
            said = self.run(block, is_answered=answer is not None)
            if answer is not None:
                check_answer(answer, self.own_names(answer.text), said)

    def run(self, block: Block, *, is_answered: bool) -> str:
        """Run a block, and give what its last command printed."""
        if block.language == "python":
            return self.succeed(block, [sys.executable, "-c", self.localized(block.text)])
        said = ""
        # An error of the server's is a failure, unless the document says what is answered.
        curl = _CURL.format(options="" if is_answered else "--fail-with-body ")
        for line in block.text.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["kingpole", "serve"]:
                self.serve(*words[2:])
            elif words:
                said = self.succeed(block, ["bash", "-euo", "pipefail", "-c", curl + self.localized(line)])
        return said

    def serve(self, *arguments: str) -> Served:
        self.end()
        words = [self.own_names(word) for word in arguments]
        paths = [str(self.directory / word) if word.startswith("models") else word for word in words]
        self.served = Served(*paths)
        assert self.served.lines[-1].split(",")[0] == "ready", "\n".join(self.served.lines)
        return self.served

    def localized(self, text: str) -> str:
        """The text for this test's server and model in place of the reader's."""
        served = self.served or self.serve("models/")
        text = self.own_names(text)
        text = text.replace("localhost:8000", served.url.removeprefix("http://"))
        text = text.replace("localhost:8002", served.management.removeprefix("http://"))
        return re.sub(r"\bNAME\b", self.name, text)

    def own_names(self, text: str) -> str:
        """The text with names of what all processes share that nobody else uses at this time."""
        return text.replace("kingpole-spec", f"kingpole-spec-{os.getpid()}")

    def succeed(self, block: Block, command: list[str]) -> str:
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
        return ended.stdout

    def end(self) -> None:
        if self.served:
            self.served.end()
            self.served = None
            # A server that is killed leaves its socket.
            Path(self.own_names("/tmp/kingpole-spec.sock")).unlink(missing_ok=True)


def check_answer(block: Block, expected: str, said: str) -> None:
    if block.language == "json":
        assert json.loads(said) == json.loads(expected), f"line {block.line}: {said}"
    else:
        assert said.strip("\n") == expected.strip("\n"), f"line {block.line}: {said}"


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
        assert block.language in ("text", "sh", "python", *ANSWERS) or block.text.startswith("# models/"), (
            f"{document}:{block.line}: {block.language} is not run"
        )
    with session(tmp_path, document) as reader:
        if document in SPECIFICATION and document != OVERVIEW:
            reader.follow(blocks(ROOT / OVERVIEW))
        reader.follow(shown)
        # A document of files alone is right if they can be served.
        reader.localized("")
