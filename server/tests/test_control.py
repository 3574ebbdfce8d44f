"""Loading and unloading on a running server, as those do it who manage models from outside."""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from served_process import PLUS, Served, needs_core, start, write_model

__all__ = ["start"]
pytestmark = needs_core


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "repository"
    write_model(directory, "plus", PLUS)
    onnx_models.doubling(directory / "double" / "1" / "model.onnx")
    return directory


@pytest.fixture
def explicit(start: Callable[..., Served], repository: Path) -> Served:
    return start(repository, "--control-mode", "explicit", "--load-model", "double")


def index(server: Served, **fields: object) -> dict[str, tuple[str, str]]:
    status, rows = server.ask("/v2/repository/index", fields)
    assert status == 200, rows
    return {row["name"]: (row["state"], row["reason"]) for row in rows}


def change(server: Served, model: str, action: str, body: object = None) -> tuple[int, Any]:
    return server.ask(f"/v2/repository/models/{model}/{action}", {} if body is None else body)


def wait_for(server: Served, model: str, state: str) -> None:
    deadline = time.monotonic() + 30
    while index(server)[model][0] != state:
        assert time.monotonic() < deadline, index(server)
        time.sleep(0.01)  # there is nothing to wait on: the index is only told when asked


def test_the_index_tells_every_model_and_its_state(explicit: Served) -> None:
    assert index(explicit) == {"double": ("READY", ""), "plus": ("UNAVAILABLE", "not loaded")}
    assert index(explicit, ready=True) == {"double": ("READY", "")}
    assert index(explicit, ready=False, repository_name="any") == index(explicit)


def test_a_model_is_loaded_unloaded_and_loaded_again(explicit: Served) -> None:
    assert change(explicit, "plus", "load") == (200, {})
    assert explicit.infer("plus", [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == [2, 3, 4, 5]
    assert change(explicit, "plus", "unload", {"parameters": {"unload_dependents": True}}) == (200, {})
    status, told = explicit.infer("plus", [[1, 2, 3, 4]])
    assert status in (404, 503), told
    wait_for(explicit, "plus", "UNAVAILABLE")
    assert index(explicit)["plus"] == ("UNAVAILABLE", "unloaded")
    status, told = explicit.infer("plus", [[1, 2, 3, 4]])
    assert status == 404
    assert "Request for unknown model: 'plus' is not found" in told["error"]
    assert change(explicit, "plus", "load")[0] == 200
    assert explicit.infer("plus", [[1, 2, 3, 4]])[0] == 200


def test_why_a_model_cannot_be_loaded_is_in_the_answer_and_in_the_index(
    explicit: Served, repository: Path
) -> None:
    (repository / "double" / "1" / "model.onnx").write_bytes(b"no model")
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights on Tuesdays')\n")
    status, told = change(explicit, "broken", "load")
    assert status == 409
    assert "no weights on Tuesdays" in told["error"]
    assert "no weights on Tuesdays" in index(explicit)["broken"][1]
    status, told = change(explicit, "double", "load")
    assert status == 409
    assert "failed to load 'double'" in told["error"]
    assert explicit.infer("double", [[1, 2, 3, 4]])[0] == 200, "what was served before stays"


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("nowhere", {}, 404, "the repository has no such model"),
        ("%2e%2e", {}, 400, "is no model name"),
        ("double", {"parameters": {"speed": 1}}, 400, "'speed'"),
        ("double", {"parameters": {"config": "{"}}, 400, "no JSON"),
        ("double", {"parameters": {"config": {"input": [3]}}}, 400, "input: expected a message"),
        ("double", {"parameters": {"config": {"max_batch_size": "many"}}}, 400, "max_batch_size"),
        ("double", {"parameters": {"config": {"batch_input": [{}]}}}, 400, "batch_input"),
        ("double", {"parameters": {"file:1/model.onnx": "AAAA"}}, 400, "without their 'config'"),
        ("double", {"parameters": {"config": "{}", "file:../x": "AAAA"}}, 400, "'file:../x'"),
        ("double", {"parameters": 3}, 400, "'parameters' is not an object"),
        ("double", [], 400, "malformed JSON"),
    ],
)
def test_a_load_that_cannot_be_is_refused_with_the_reason(
    explicit: Served, model: str, body: object, status: int, words: str
) -> None:
    refused, told = change(explicit, model, "load", body)
    assert refused == status, told
    assert words in told["error"]
    assert explicit.infer("double", [[1, 2, 3, 4]])[0] == 200


def test_unloading_what_is_not_there_is_no_error(explicit: Served) -> None:
    assert change(explicit, "nowhere", "unload") == (200, {})
    status, told = change(explicit, "double", "unload", {"parameters": {"speed": 1}})
    assert (status, "'speed'" in told["error"]) == (400, True)
    assert explicit.infer("double", [[1, 2, 3, 4]])[0] == 200


def test_a_configuration_replaces_the_one_beside_the_model(explicit: Served) -> None:
    for config in ('{"max_batch_size": 4}', {"maxBatchSize": "4"}):
        assert change(explicit, "double", "load", {"parameters": {"config": config}}) == (200, {})
        assert explicit.ask("/v2/models/double/config")[1]["max_batch_size"] == 4
    assert change(explicit, "double", "load")[0] == 200
    assert explicit.ask("/v2/models/double/config")[1]["max_batch_size"] == 32


def test_files_of_a_request_are_a_model_until_it_is_unloaded(
    start: Callable[..., Served], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("TMPDIR", str(kept))
    monkeypatch.setattr(tempfile, "tempdir", None)
    server = start(repository, "--control-mode", "explicit")
    content = (repository / "double" / "1" / "model.onnx").read_bytes()
    files = {
        "config": '{"backend": "onnxruntime", "max_batch_size": 2}',
        "file:3/model.onnx": base64.b64encode(content).decode(),
    }
    assert change(server, "brought", "load", {"parameters": files}) == (200, {})
    assert server.infer("brought", [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == [2, 4, 6, 8]
    assert server.ask("/v2/models/brought")[1]["versions"] == ["3"]
    (directory,) = kept.glob("kingpole-*")
    assert directory.stat().st_mode & 0o077 == 0, "nobody else may read it"
    assert change(server, "brought", "unload")[0] == 200
    wait_for(server, "brought", "UNAVAILABLE")
    assert list(kept.glob("kingpole-*")) == []


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_nothing_is_loaded_on_request_unless_that_was_chosen(
    start: Callable[..., Served], repository: Path, mode: str
) -> None:
    server = start(repository, "--control-mode", mode)
    for action in ("load", "unload"):
        status, told = change(server, "double", action)
        assert (status, "not allowed" in told["error"]) == (503, True)
    assert index(server)["double"] == ("READY", "")


def test_the_puller_of_kserve_gets_200_although_the_files_are_gone_before_it_unloads(
    explicit: Served, repository: Path
) -> None:
    # KServe's agent puts a model's files down, loads it, and removes them before it unloads.
    shutil.copytree(repository / "double", repository / "pulled")
    assert change(explicit, "pulled", "load")[0] == 200
    assert explicit.infer("pulled", [[1, 2, 3, 4]])[0] == 200
    shutil.rmtree(repository / "pulled")
    assert explicit.infer("pulled", [[1, 2, 3, 4]])[0] == 200
    assert change(explicit, "pulled", "unload") == (200, {})
    assert change(explicit, "pulled", "unload") == (200, {})
    wait_for(explicit, "pulled", "UNAVAILABLE")


def test_a_model_that_the_puller_of_kserve_replaces_is_served_anew(
    explicit: Served, repository: Path
) -> None:
    # A trained model that changed is removed and unloaded, then put down and loaded under the same name.
    shutil.copytree(repository / "double", repository / "pulled")
    assert change(explicit, "pulled", "load") == (200, {})
    for source in ("plus", "double", "plus"):
        shutil.rmtree(repository / "pulled")
        assert change(explicit, "pulled", "unload") == (200, {})
        shutil.copytree(repository / source, repository / "pulled")
        assert change(explicit, "pulled", "load") == (200, {})
        expected = [2, 3, 4, 5] if source == "plus" else [2, 4, 6, 8]
        assert explicit.infer("pulled", [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == expected


def test_a_model_as_the_agent_of_seldon_2_lays_it_down(explicit: Served, repository: Path) -> None:
    # It numbers its models, puts each under its number, and writes the name into the configuration.
    for number in (1, 2):
        model = f"double_{number}"
        target = repository / model / str(number)
        shutil.copytree(repository / "double" / "1", target)
        (repository / model / "config.pbtxt").write_text(f'name: "{model}"\nplatform: "onnxruntime_onnx"\n')
        assert change(explicit, model, "load") == (200, {})
        assert explicit.infer(model, [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == [2, 4, 6, 8]
        assert explicit.ask(f"/v2/models/{model}")[1]["versions"] == [str(number)]
    assert change(explicit, "double_1", "unload") == (200, {})
    wait_for(explicit, "double_1", "UNAVAILABLE")
    shutil.rmtree(repository / "double_1")
    assert explicit.infer("double_2", [[1, 2, 3, 4]])[0] == 200


def test_only_what_is_wanted_is_logged(explicit: Served) -> None:
    settings = {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
    assert explicit.ask("/v2/logging", settings)[0] == 200
    assert change(explicit, "plus", "load")[0] == 200
    assert change(explicit, "nowhere", "load")[0] == 404
    assert explicit.ask("/v2/logging", {"log_verbose_level": 0, "log_info": True})[0] == 200
    assert change(explicit, "plus", "unload")[0] == 200
    wait_for(explicit, "plus", "UNAVAILABLE")
    explicit.process.terminate()
    assert explicit.process.stderr is not None
    lines = explicit.process.stderr.read().splitlines()
    assert all(line[:4].isdecimal() and line[19] == "Z" for line in lines), lines
    told = [line[21:] for line in lines]
    assert told[0].startswith("asked to load 'plus'")
    assert told[1].startswith("asked to load 'nowhere'")
    assert told[2] == "plus: unloaded"
