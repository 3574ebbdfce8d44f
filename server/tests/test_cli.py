from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_models
import pytest
from kingpole.cli import FAILURE, SUCCESS, USAGE, CommandError, main
from kingpole.cli.images import read_image
from kingpole.cli.settings import Resolved, add_serve_arguments, resolve
from kingpole.configuration import read_configuration


def settings(arguments: list[str], environment: dict[str, str]) -> Resolved:
    parser = argparse.ArgumentParser()
    add_serve_arguments(parser)
    return resolve(parser.parse_args(arguments), environment)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kingpole.yaml"
    file.write_text("threads: 1\nreactors: 1\npoll_seconds: 7\npath: [models]\n")
    made = settings(
        ["--threads", "3", "--config", str(file)], {"KINGPOLE_THREADS": "2", "KINGPOLE_REACTORS": "2"}
    )
    assert (made["threads"], made["reactors"], made["poll_seconds"]) == (3, 2, 7)
    assert made["path"] == ["models"]
    assert made.sources["threads"] == "flag --threads"
    assert made.sources["reactors"] == "environment KINGPOLE_REACTORS"
    assert "poll_seconds" in made.describe()


@pytest.mark.parametrize(
    ("environment", "text", "reason"),
    [
        ({"KINGPOLE_THREADS": "many"}, "", "KINGPOLE_THREADS: expected int, got 'many'"),
        ({"KINGPOLE_THREADS": "0"}, "", "expected at least 1, got 0"),
        ({"KINGPOLE_CONTROL_MODE": "magic"}, "", "expected one of none, poll, explicit"),
        ({}, "treads: 3\n", "unknown field 'treads'"),
    ],
)
def test_a_wrong_setting_names_where_it_is(
    tmp_path: Path, environment: dict[str, str], text: str, reason: str
) -> None:
    file = tmp_path / "kingpole.yaml"
    file.write_text(text)
    with pytest.raises(CommandError, match=reason) as caught:
        settings(["--config", str(file)], environment)
    assert caught.value.exit_code == USAGE


def test_several_addresses_may_be_given_in_the_environment() -> None:
    made = settings([], {"KINGPOLE_LISTEN": "127.0.0.1:1, unix:/x"})
    assert made["listen"] == ["127.0.0.1:1", "unix:/x"]


def test_what_the_machine_decides_is_printed_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), "--print-config"]) == SUCCESS
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("buffer_bytes"))
    assert int(line.split()[2]) >= 1 << 20
    assert line.endswith("MiB of memory")
    assert main(["serve", str(tmp_path), "--print-config", "--buffer-bytes", "12345678"]) == SUCCESS
    assert "12345678  # flag --buffer-bytes" in capsys.readouterr().out


def test_inspect_prints_and_writes_what_was_inferred(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx_models.doubling(tmp_path / "m" / "1" / "model.onnx")
    assert main(["inspect", str(tmp_path / "m"), "--write"]) == SUCCESS
    assert "backend: onnx" in capsys.readouterr().out
    written = read_configuration(tmp_path / "m" / "model.yaml")
    assert written.max_batch_size == 32
    assert written.inputs[0].shape == (-1, 4)
    assert main(["inspect", str(tmp_path / "m"), "--write"]) == FAILURE, "an existing file is left alone"


def test_inspect_says_why_a_model_cannot_be_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path)]) == FAILURE
    assert "bad: cannot be served: ONNX Runtime" in capsys.readouterr().out


def test_a_path_without_a_model_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == USAGE
    assert "no model in" in capsys.readouterr().err
    assert main(["serve"]) == USAGE


@pytest.mark.parametrize(
    ("datatype", "shape", "made"),
    [
        ("UINT8", (-1, 4, 6, 3), (1, 4, 6, 3)),
        ("FP32", (-1, 3, 4, 6), (1, 3, 4, 6)),
        ("FP16", (3, -1, -1), (3, 2, 2)),
        ("UINT8", (-1, -1, 1), (2, 2, 1)),
    ],
)
def test_a_picture_takes_the_form_of_the_input(
    tmp_path: Path, datatype: str, shape: tuple[int, ...], made: tuple[int, ...]
) -> None:
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "red.png")
    tensor = read_image(tmp_path / "red.png", datatype, shape)
    assert tensor.shape == made
    assert tensor.max() == (255 if datatype == "UINT8" and made[-1] == 3 else tensor.max())
    if datatype == "FP32":
        assert np.all(tensor[0, 0] == 1)
        assert np.all(tensor[0, 1] == 0)


def test_the_command_line_imports_no_framework() -> None:
    code = (
        "import sys, kingpole.cli.serve, kingpole.management\n"
        "print(*sorted({'numpy', 'onnxruntime', 'aiohttp', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert shown.stdout.strip() == ""
