from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from kingpole.lifecycle import ControlError, Lifecycle
from memory_core import MemoryCore


@pytest.fixture
def core() -> MemoryCore:
    return MemoryCore()


def lifecycle(core: MemoryCore, *paths: Path, **settings: Any) -> Lifecycle:
    return Lifecycle(core, paths, report=lambda _: None, **settings)


def break_file(file: Path) -> None:
    file.write_bytes(b"no model")


async def test_every_model_is_served_and_the_server_ready(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "a.onnx")
    onnx_models.doubling(tmp_path / "b" / "3" / "model.onnx")
    made = lifecycle(core, tmp_path)
    await made.start()
    assert core.names() == ["a/1", "b/3"]
    assert core.is_ready is True
    assert core.index == []
    (specification,) = (each for each in core.served.values() if each["name"] == "a")
    assert specification["inputs"] == [["x", "FP32", [-1, 4], False]]
    assert json.loads(specification["config_json"])["max_batch_size"] == 32


async def test_a_broken_model_is_told_and_only_the_others_are_served(
    core: MemoryCore, tmp_path: Path
) -> None:
    onnx_models.doubling(tmp_path / "good.onnx")
    break_file(tmp_path / "bad.onnx")
    await lifecycle(core, tmp_path).start()
    assert core.names() == ["good/1"]
    assert core.is_ready is False
    ((name, version, state, reason),) = core.index
    assert (name, version, state) == ("bad", "1", "UNAVAILABLE")
    assert "ONNX Runtime" in reason


async def test_a_configuration_that_contradicts_the_model_closes_what_was_opened(
    core: MemoryCore, tmp_path: Path
) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text("inputs: [{name: x, datatype: FP64}]\n")
    await lifecycle(core, tmp_path).start()
    assert core.opened == {}
    assert "expected FP64" in core.index[0][3]


async def test_a_name_in_two_repositories_is_not_served(core: MemoryCore, tmp_path: Path) -> None:
    for repository in ("one", "two"):
        onnx_models.doubling(tmp_path / repository / "m.onnx")
    await lifecycle(core, tmp_path / "one", tmp_path / "two").start()
    assert core.names() == []
    assert "there twice" in core.index[0][3]


async def test_a_reload_serves_the_new_before_closing_the_old(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["m"])
    await made.start()
    await made.load("m")
    assert [action for action, _ in core.history] == ["open", "serve", "open", "serve", "close"]
    assert core.history[-1][1] == core.history[0][1]
    assert core.names() == ["m/1"]


async def test_a_failed_reload_keeps_the_old(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["*"])
    await made.start()
    break_file(tmp_path / "m.onnx")
    with pytest.raises(ControlError, match="failed to load 'm': ONNX Runtime") as caught:
        await made.load("m")
    assert caught.value.code == "FAILED_PRECONDITION"
    assert core.names() == ["m/1"]
    assert core.is_ready is True


async def test_a_new_version_replaces_the_old_one(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "1" / "model.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["m"])
    await made.start()
    onnx_models.doubling(tmp_path / "m" / "2" / "model.onnx")
    await made.load("m")
    assert core.names() == ["m/2"]
    assert core.is_ready is True


async def test_a_model_is_reloaded_once_a_change_has_settled(core: MemoryCore, tmp_path: Path) -> None:
    file = onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="poll")
    await made.start()
    await made.poll()
    assert len(core.history) == 2, "nothing has changed"
    os.utime(file, ns=(5, 5))
    await made.poll()
    assert len(core.history) == 2, "the change was seen once only"
    await made.poll()
    assert [action for action, _ in core.history[2:]] == ["open", "serve", "close"]
    await made.poll()
    assert len(core.history) == 5


async def test_polling_finds_new_models_and_drops_those_that_are_gone(
    core: MemoryCore, tmp_path: Path
) -> None:
    file = onnx_models.doubling(tmp_path / "a.onnx")
    made = lifecycle(core, tmp_path, mode="poll")
    await made.start()
    onnx_models.doubling(tmp_path / "b.onnx")
    file.unlink()
    await made.poll()
    await made.poll()
    assert core.names() == ["b/1"]
    assert core.is_ready is True


async def test_explicit_mode_loads_only_what_it_is_told(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "a.onnx")
    onnx_models.doubling(tmp_path / "b.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["a"])
    await made.start()
    assert core.names() == ["a/1"]
    assert core.index == [["b", None, "UNAVAILABLE", "not loaded"]]
    assert core.is_ready is True
    await made.load("b")
    assert core.names() == ["a/1", "b/1"]
    await made.unload("a")
    assert core.names() == ["b/1"]
    await made.close()
    assert core.index == [["a", "1", "UNAVAILABLE", "unloaded"]]
    await made.unload("never there")


async def test_unloading_is_answered_before_the_models_requests_have_ended(
    core: MemoryCore, tmp_path: Path
) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["m"])
    await made.start()
    core.may_close.clear()
    await made.unload("m", {"unload_dependents": True})
    assert core.names() == [], "no request is admitted any more"
    assert core.index == [["m", "1", "UNLOADING", ""]]
    assert len(core.opened) == 1
    core.may_close.set()
    await made.close()
    assert core.index == [["m", "1", "UNAVAILABLE", "unloaded"]]
    assert core.opened == {}


async def test_a_load_waits_for_the_unloading_before_it(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["m"])
    await made.start()
    core.may_close.clear()
    await made.unload("m")
    again = asyncio.create_task(made.load("m"))
    await asyncio.sleep(0)
    core.may_close.set()
    await again
    assert core.names() == ["m/1"]
    assert [action for action, _ in core.history[-3:]] == ["close", "open", "serve"]
    assert core.index == []


@pytest.mark.parametrize("parameters", [{"speed": 1}, {"unload_dependents": "yes"}])
async def test_a_bad_unload_is_refused_and_unloads_nothing(
    core: MemoryCore, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit", load_models=["m"])
    await made.start()
    with pytest.raises(ControlError, match=next(iter(parameters))) as caught:
        await made.unload("m", parameters)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert core.names() == ["m/1"]


async def test_a_repository_that_is_gone_is_told_as_such(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "r" / "m.onnx")
    made = lifecycle(core, tmp_path / "r", mode="explicit", load_models=["m"])
    await made.start()
    (tmp_path / "r").rename(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="No such file") as caught:
        await made.load("m")
    assert caught.value.code == "FAILED_PRECONDITION"
    assert core.names() == ["m/1"]


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uploaded files are kept."""
    directory = tmp_path / "uploads"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def kept(uploads: Path) -> list[Path]:
    return list(uploads.iterdir())


async def test_a_load_may_bring_its_own_files_which_end_with_the_model(
    core: MemoryCore, tmp_path: Path, uploads: Path
) -> None:
    content = onnx_models.doubling(tmp_path / "there.onnx").read_bytes()
    repository = tmp_path / "repository"
    repository.mkdir()
    made = lifecycle(core, repository, mode="explicit")
    await made.start()
    await made.load("m", {"config": '{"max_batch_size": 4}'}, [("file:7/model.onnx", content)])
    assert core.names() == ["m/7"]
    (first,) = kept(uploads)
    assert (first / "m" / "7" / "model.onnx").read_bytes() == content
    await made.load("m", {"config": "{}"}, [("file:8/model.onnx", content)])
    assert core.names() == ["m/8"]
    (second,) = kept(uploads)
    assert second != first, "what the new files replace is removed"
    await made.unload("m")
    await made.close()
    assert kept(uploads) == []


async def test_files_that_cannot_be_loaded_are_removed_and_the_model_stays(
    core: MemoryCore, tmp_path: Path, uploads: Path
) -> None:
    onnx_models.doubling(tmp_path / "r" / "m.onnx")
    made = lifecycle(core, tmp_path / "r", mode="explicit", load_models=["m"])
    await made.start()
    with pytest.raises(ControlError, match="ONNX Runtime") as caught:
        await made.load("m", {"config": "{}"}, [("file:1/model.onnx", b"no model")])
    assert caught.value.code == "FAILED_PRECONDITION"
    assert core.names() == ["m/1"]
    assert kept(uploads) == []


@pytest.mark.parametrize(
    "name",
    [
        "file:1/../../x", "file:1//x", "file:/etc/passwd", "file:x/model.onnx", "file:1",
        "file:01/model.onnx", "file:", "file:1/a\\b", "file:1/.", "file:1/a\0b",
        "file:1/" + "d/" * 20 + "x", "file:1/" + "x" * 300,
        "file:../1/x", "file:-1/x",
    ],
)  # fmt: skip
async def test_a_file_that_would_lie_elsewhere_is_refused_before_anything_is_written(
    core: MemoryCore, tmp_path: Path, uploads: Path, name: str
) -> None:
    (tmp_path / "r").mkdir()
    made = lifecycle(core, tmp_path / "r", mode="explicit")
    await made.start()
    with pytest.raises(ControlError) as caught:
        await made.load("m", {"config": "{}"}, [("file:1/model.onnx", b"x"), (name, b"x")])
    assert caught.value.code == "INVALID_ARGUMENT"
    assert kept(uploads) == []


@pytest.mark.parametrize(
    ("parameters", "files", "words"),
    [
        ({}, [("file:1/model.onnx", b"x")], "without their 'config'"),
        ({"config": "{}"}, [("file:1/a", b"x"), ("file:1/a/b", b"x")], "beneath another file"),
        ({"config": "{}"}, [(f"file:1/{index}", b"x") for index in range(257)], "257 files"),
        ({"config": "[" * 100_000}, [], "no JSON"),
    ],
)
async def test_files_that_make_no_model_are_refused(
    core: MemoryCore,
    tmp_path: Path,
    uploads: Path,
    parameters: dict[str, Any],
    files: list[tuple[str, bytes]],
    words: str,
) -> None:
    (tmp_path / "r").mkdir()
    made = lifecycle(core, tmp_path / "r", mode="explicit")
    await made.start()
    with pytest.raises(ControlError, match=words) as caught:
        await made.load("m", parameters, files)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert kept(uploads) == []


async def test_labels_beside_the_model_are_served_with_it(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(
        'output { name: "y" data_type: TYPE_FP32 dims: [-1, 4] label_filename: "names.txt" }'
    )
    (tmp_path / "m" / "names.txt").write_text("one\ntwo\n")
    made = lifecycle(core, tmp_path)
    await made.start()
    assert [each["labels"] for each in core.served.values()] == [{"y": ["one", "two"]}], core.index


@pytest.mark.parametrize(
    ("labels", "content", "words"),
    [("nothing.txt", None, "is missing"), ("../x.txt", None, "leaves"), ("l.txt", b"\xff", "not UTF-8")],
)
async def test_labels_that_cannot_be_read_are_told(
    core: MemoryCore, tmp_path: Path, labels: str, content: bytes | None, words: str
) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text(f"outputs: [{{name: y, labels: {labels}}}]\n")
    if content is not None:
        (tmp_path / "m" / labels).write_bytes(content)
    await lifecycle(core, tmp_path).start()
    assert words in core.index[0][3]


async def test_a_load_may_bring_its_own_configuration(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text("max_batch_size: 8\n")
    made = lifecycle(core, tmp_path, mode="explicit")
    await made.start()
    await made.load("m", {"config": '{"max_batch_size": 4}'})
    assert [each["max_batch_size"] for each in core.served.values()] == [4]


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("nowhere", {}, "NOT_FOUND"),
        ("../m", {}, "INVALID_ARGUMENT"),
        ("m", {"speed": 1}, "INVALID_ARGUMENT"),
        ("m", {"config": "{"}, "INVALID_ARGUMENT"),
        ("m", {"config": '{"default_model_filename": "../x"}'}, "FAILED_PRECONDITION"),
    ],
)
async def test_a_bad_load_is_refused_with_its_code(
    core: MemoryCore, tmp_path: Path, name: str, parameters: dict[str, Any], code: str
) -> None:
    onnx_models.doubling(tmp_path / "m" / "model.onnx")
    made = lifecycle(core, tmp_path, mode="explicit")
    await made.start()
    with pytest.raises(ControlError) as caught:
        await made.load(name, parameters)
    assert caught.value.code == code
    assert core.names() == []


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_loading_is_not_allowed_in_other_modes(core: MemoryCore, tmp_path: Path, mode: str) -> None:
    made = lifecycle(core, tmp_path, mode=mode)
    await made.start()
    for change in (made.load, made.unload):
        with pytest.raises(ControlError, match="not allowed if polling is enabled") as caught:
            await change("m")
        assert caught.value.code == "UNAVAILABLE"


async def test_control_requests_of_the_core_are_answered(core: MemoryCore, tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "m.onnx")
    made = lifecycle(core, tmp_path, mode="explicit")
    await made.start()
    serving = asyncio.create_task(made.serve_controls())
    core.controls.put(json.dumps({"token": 1, "action": "load", "model": "m", "parameters": {}}).encode())
    assert await asyncio.to_thread(core.completed.get, timeout=30) == (1, None, "")
    core.controls.put(json.dumps({"token": 2, "action": "load", "model": "no", "parameters": {}}).encode())
    token, code, message = await asyncio.to_thread(core.completed.get, timeout=30)
    assert (token, code) == (2, "NOT_FOUND")
    assert "no such model" in message
    core.files[4] = [("file:1/model.onnx", (tmp_path / "m.onnx").read_bytes())]
    brought = {"token": 4, "action": "load", "model": "n", "parameters": {"config": "{}"}, "files": 1}
    core.controls.put(json.dumps(brought).encode())
    assert await asyncio.to_thread(core.completed.get, timeout=30) == (4, None, "")
    assert core.names() == ["m/1", "n/1"]
    core.controls.put(json.dumps({"token": 3, "action": "unload", "model": "m"}).encode())
    assert await asyncio.to_thread(core.completed.get, timeout=30) == (3, None, "")
    assert core.names() == ["n/1"]
    await made.close()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
