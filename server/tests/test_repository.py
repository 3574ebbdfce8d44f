from __future__ import annotations

import os
from pathlib import Path

import onnx_models
import pytest
from kingpole.repository import Artifact, Broken, RepositoryError, check_name, resolve_inside, scan


def artifacts(path: Path) -> list[Artifact]:
    found = scan(path)
    assert all(isinstance(each, Artifact) for each in found), found
    return [each for each in found if isinstance(each, Artifact)]


def only(path: Path) -> Artifact:
    (found,) = artifacts(path)
    return found


def broken(path: Path) -> str:
    (found,) = scan(path)
    assert isinstance(found, Broken)
    return found.reason


def test_a_model_file_alone_is_a_model(tmp_path: Path) -> None:
    found = only(onnx_models.doubling(tmp_path / "double.onnx"))
    assert (found.name, found.version, found.backend) == ("double", "1", "onnx")
    assert found.file == tmp_path / "double.onnx"


def test_a_directory_with_a_model_file_is_a_model(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "double" / "model.onnx")
    assert only(tmp_path / "double").name == "double"
    assert only(tmp_path).name == "double"


def test_a_version_directory_is_found_and_others_ignored(tmp_path: Path) -> None:
    for version in ("1", "2", "10", "03", "old", "-1"):
        onnx_models.doubling(tmp_path / "double" / version / "model.onnx")
    assert only(tmp_path / "double").version == "10"
    (tmp_path / "double" / "model.yaml").write_text("versions: all")
    assert [each.version for each in artifacts(tmp_path)] == ["1", "2", "10"]


def test_a_repository_holds_models_of_several_forms(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "a" / "1" / "model.onnx")
    onnx_models.doubling(tmp_path / "b" / "model.onnx")
    onnx_models.doubling(tmp_path / "c.onnx")
    for directory in (tmp_path / "d", tmp_path / "e" / "1"):
        directory.mkdir(parents=True)
        (directory / "model.py").write_text("")
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".git").mkdir()
    assert [(each.name, each.backend) for each in artifacts(tmp_path)] == [
        ("a", "onnx"), ("b", "onnx"), ("c", "onnx"), ("d", "python"), ("e", "python"),
    ]  # fmt: skip


def test_a_triton_configuration_is_read(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "1" / "weights.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx" default_model_filename: "weights.onnx" max_batch_size: 4'
    )
    found = only(tmp_path)
    assert found.configuration.max_batch_size == 4
    assert found.file == tmp_path / "m" / "1" / "weights.onnx"


def test_a_broken_model_does_not_hide_the_others(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "good" / "model.onnx")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.yaml").write_text("backend: onnx\nfile: no.onnx\n")
    bad, good = scan(tmp_path)
    assert isinstance(bad, Broken)
    assert "no.onnx is missing" in bad.reason
    assert isinstance(good, Artifact)


def test_a_name_that_differs_from_the_directorys_is_an_error(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text("name: other\n")
    assert "expected 'm', the directory's, got 'other'" in broken(tmp_path)


@pytest.mark.parametrize("link", ["model", "version", "file"])
def test_links_that_leave_the_repository_are_refused(tmp_path: Path, link: str) -> None:
    outside = onnx_models.doubling(tmp_path / "outside" / "1" / "model.onnx")
    root = tmp_path / "root"
    root.mkdir()
    if link == "model":
        (root / "m").symlink_to(tmp_path / "outside")
    elif link == "version":
        (root / "m").mkdir()
        (root / "m" / "1").symlink_to(outside.parent)
        (root / "m" / "model.yaml").write_text("")
    else:
        (root / "m").mkdir()
        (root / "m" / "model.onnx").symlink_to(outside)
    assert "a link that leaves the repository" in broken(root)


def test_links_within_the_repository_are_followed(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "..data" / "double" / "model.onnx")
    (tmp_path / "double").symlink_to(tmp_path / "..data" / "double")
    assert only(tmp_path).name == "double"


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    os.mkfifo(tmp_path / "m" / "model.onnx")
    assert "neither a file nor a directory" in broken(tmp_path)


@pytest.mark.parametrize(
    "part",
    ["..", "../x", "a/../../x", "/etc/passwd", "a\0b", "..\\x", "C:\\x"],
)
def test_nothing_outside_the_root_is_given_out(tmp_path: Path, part: str) -> None:
    with pytest.raises(RepositoryError):
        resolve_inside(tmp_path, part)


@pytest.mark.parametrize("configured", ["../secret.onnx", "/etc/passwd", "a/../../secret.onnx"])
def test_a_configured_file_stays_inside(tmp_path: Path, configured: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.yaml").write_text(f"backend: onnx\nfile: {configured}\n")
    assert "leaves the repository" in broken(tmp_path / "m")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "a/b",
        "a\\b",
        "%2e%2e",
        "a\n",
        "\u2024\u2024",
        "C:",
        "-a",
        "x" * 129,
        "a b",
        "a\0",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RepositoryError, match="is no model name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "resnet50-v1.5", "A_b", "0", "x" * 128])
def test_a_name_is_given_back(name: str) -> None:
    assert check_name(name) == name


def test_a_changed_file_changes_the_stamp(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    before = only(tmp_path).stamp
    assert only(tmp_path).stamp == before
    os.utime(tmp_path / "m" / "model.onnx", ns=(1, 1))
    assert only(tmp_path).stamp != before


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "nowhere")
