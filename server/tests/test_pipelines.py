"""Models that are made of models, through a whole server."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kingpole_client
import numpy as np
import pytest
from kingpole.pipelines import concerned, in_rounds
from kingpole.repository import scan
from served_process import Served, needs_core, start, write_model

__all__ = ["start"]

# Finds boxes in a picture: as many as its first value says.
DETECT = """
import numpy as np
INPUTS = [("picture", "UINT8", [-1, -1])]
OUTPUTS = [("boxes", "INT32", [-1, 2]), ("any", "BOOL", [1])]
def infer(picture):
    count = int(picture[0, 0])
    boxes = np.array([(row, row + 1) for row in range(count)], np.int32).reshape(count, 2)
    return boxes, np.array([count > 0])
"""

CROP = """
import numpy as np
INPUTS = [("picture", "UINT8", [-1, -1]), ("boxes", "INT32", [-1, 2])]
OUTPUTS = [("crops", "UINT8", [-1, 4])]
def infer(picture, boxes):
    return np.stack([picture[begin] for begin, end in boxes]).reshape(len(boxes), 4)
"""

# At most 3 crops at a time.
RECOGNIZE = """
import numpy as np
INPUTS = [("x", "UINT8", [-1, 4])]
OUTPUTS = [("text", "BYTES", [-1])]
def infer(x):
    assert len(x) <= 3, len(x)
    return np.array([" ".join(map(str, row)).encode() for row in x], object)
"""

NOTHING = """
import numpy as np
INPUTS = [("boxes", "INT32", [-1, 2])]
OUTPUTS = [("texts", "BYTES", [-1])]
def infer(boxes):
    return np.array([b"nothing was found"], object)
"""

READ = """
inputs:
  - {name: picture, datatype: UINT8, shape: [-1, -1]}
outputs:
  - {name: texts, datatype: BYTES, shape: [-1]}
  - {name: boxes, datatype: INT32, shape: [-1, 2]}
steps:
  - {model: recognize, when: any, inputs: {x: crops}, outputs: {text: texts}}
  - {model: crop, when: any, inputs: {picture: picture, boxes: boxes}, outputs: {crops: crops}}
  - {model: nothing, unless: any, inputs: {boxes: boxes}, outputs: {texts: texts}}
  - {model: detect, inputs: {picture: picture}, outputs: {boxes: boxes, any: any}}
"""


def write_pipeline(repository: Path, name: str, text: str, file: str = "model.yaml") -> None:
    (repository / name).mkdir(parents=True, exist_ok=True)
    (repository / name / file).write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, source in (("detect", DETECT), ("crop", CROP), ("recognize", RECOGNIZE), ("nothing", NOTHING)):
        write_model(tmp_path, name, source)
    (tmp_path / "recognize" / "model.yaml").write_text("max_batch_size: 3\n")
    for name in ("detect", "crop", "nothing"):
        (tmp_path / name / "model.yaml").write_text("max_batch_size: 0\nwarmup: false\n")
    write_pipeline(tmp_path, "read", READ)
    return tmp_path


def picture(boxes: int) -> np.ndarray:
    made = np.arange(40, dtype=np.uint8).reshape(10, 4)
    made[0, 0] = boxes
    return made


@needs_core
def test_a_picture_gives_as_many_texts_as_it_has_boxes(
    start: Callable[..., Served], repository: Path
) -> None:
    server = start(repository)
    assert any("read version 1: ready, pipeline" in line for line in server.lines), server.lines
    with kingpole_client.connect(server.url.replace("http", "grpc")) as client, ThreadPoolExecutor() as pool:
        metadata = client.metadata("read")
        assert [each.name for each in metadata.inputs] == ["picture"]
        assert metadata.platform == "ensemble"

        def read(boxes: int) -> None:
            response = client.infer("read", {"picture": picture(boxes)})
            assert response["boxes"].shape == (boxes, 2)
            rows = [" ".join(map(str, row)).encode() for row in picture(boxes)[:boxes]]
            assert list(response["texts"]) == (rows or [b"nothing was found"])

        list(pool.map(read, [0, 1, 2, 3, 4, 10, 0, 7, 1, 5]))
        # A picture that the step cannot take is the client's fault, and the step is named.
        with pytest.raises(kingpole_client.KingpoleError, match="step 'crop' of pipeline 'read'"):
            client.infer("read", {"picture": np.full((2, 3), 1, np.uint8)})
        with pytest.raises(kingpole_client.InvalidArgument, match="'picture'"):
            client.infer("read", {"picture": np.zeros((2, 3), np.float32)})
    configuration = server.ask("/v2/models/read/config")[1]
    assert configuration["ensemble_scheduling"]["step"][0]["model_name"] == "recognize"
    metrics = server.ask("/metrics", base=server.management)[1]
    assert 'kingpole_in_flight{model="read",version="1"} 0' in metrics


TRITON = """
name: "sum"
platform: "ensemble"
max_batch_size: 4
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    { model_name: "plus" model_version: -1
      input_map { key: "x" value: "IN" } output_map { key: "y" value: "once" } },
    { model_name: "plus" model_version: 1
      input_map { key: "x" value: "once" } output_map { key: "y" value: "OUT" } }
  ]
}
"""

PLUS = """
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    return x + 1
"""


@needs_core
def test_an_ensemble_of_triton_is_one(start: Callable[..., Served], tmp_path: Path) -> None:
    write_model(tmp_path, "plus", PLUS)
    write_pipeline(tmp_path, "sum", TRITON, "config.pbtxt")
    (tmp_path / "sum" / "1").mkdir()
    server = start(tmp_path)
    with kingpole_client.connect(server.url) as client:
        response = client.infer("sum", {"IN": np.zeros((2, 4), np.float32)})
        np.testing.assert_array_equal(response["OUT"], np.full((2, 4), 2, np.float32))
    steps = server.ask("/v2/models/sum/config")[1]["ensemble_scheduling"]["step"]
    assert [(step["model_version"], step["input_map"]) for step in steps] == [
        (-1, {"x": "IN"}),
        (1, {"x": "once"}),
    ]


@needs_core
def test_what_makes_no_sense_is_said_at_the_start(start: Callable[..., Served], repository: Path) -> None:
    bad = {
        "circle": READ.replace(
            "inputs: {picture: picture}, outputs: {boxes", "inputs: {picture: crops}, outputs: {boxes"
        ),
        "missing": READ.replace("x: crops", "x: craps"),
        "mistaken": READ.replace("x: crops", "x: boxes"),
        "absent": READ.replace("model: nothing", "model: nobody"),
        "half": READ.replace("  - {model: nothing", "  # - {model: nothing"),
        "untold": READ.replace(", datatype: BYTES, shape: [-1]", ""),
        "twofold": READ.replace("unless: any", "unless: any, when: any"),
        "misspelt": READ.replace("unless:", "unles:"),
        "backed": READ + "backend: python\n",
    }
    for name, text in bad.items():
        write_pipeline(repository, name, text)
    server = start(repository)
    reasons = {row["name"]: row["reason"] for row in server.ask("/repository", base=server.management)[1]}
    for name, words in {
        "circle": "steps wait for each other in a circle: 'recognize', 'crop', 'nothing', 'detect'",
        "missing": "step 'recognize': nobody gives the tensor 'craps'",
        "mistaken": "step 'recognize': input 'x' of model 'recognize' is UINT8 [-1,4], but step"
        " 'detect' gives 'boxes' as INT32 [-1,2]",
        "absent": "step 'nobody': Request for unknown model: 'nobody' is not found",
        "half": "output 'texts': it is absent unless 'any' is true; let another step give it then",
        "untold": "output 'texts': a pipeline must say the datatype and the shape",
        "twofold": "`when` and `unless` exclude each other",
        "misspelt": "unknown field `unles` - at `$.steps[2]`",
        "backed": "steps: they belong to a pipeline, not to the backend 'python'",
        "read": "",
    }.items():
        assert words in reasons[name], (name, reasons[name])


@needs_core
def test_a_pipeline_comes_and_goes_with_its_models(start: Callable[..., Served], repository: Path) -> None:
    server = start("--control-mode", "explicit", repository)
    load, unload = "/v2/repository/models/{}/load".format, "/v2/repository/models/{}/unload".format
    # Its models come with it.
    assert server.ask(load("read"), {})[0] == 200
    states = {row["name"]: row["state"] for row in server.ask("/v2/repository/index", {})[1]}
    assert states == dict.fromkeys(("read", "detect", "crop", "recognize", "nothing"), "READY")
    assert server.ask("/v2/models/read/ready")[0] == 200
    assert server.ask(unload("crop"), {})[0] == 200
    assert server.ask("/v2/models/read/ready")[0] == 503
    body = {"inputs": [{"name": "picture", "datatype": "UINT8", "shape": [2, 4], "data": [1] * 8}]}
    status, answer = server.ask("/v2/models/read/infer", body)
    assert status == 503
    assert "step 'crop' of pipeline 'read'" in answer["error"]
    assert server.ask(load("crop"), {})[0] == 200
    assert server.ask("/v2/models/read/infer", body)[0] == 200
    # And they go with it, if that is wanted.
    assert server.ask(unload("read"), {"parameters": {"unload_dependents": True}})[0] == 200
    assert server.ask("/v2/repository/index", {"ready": True})[1] == []
    status, answer = server.ask(load("nobody"), {})
    assert status == 404


@needs_core
def test_a_pipeline_that_waits_for_its_model_is_served_when_it_comes(
    start: Callable[..., Served], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    aside = tmp_path_factory.mktemp("aside") / "crop"
    (repository / "crop").rename(aside)
    server = start("--control-mode", "poll", "--poll-seconds", "1", repository)
    assert server.ask("/v2/models/read/ready")[0] == 503
    aside.rename(repository / "crop")
    server.read_until("read version 1: ready")
    assert server.ask("/v2/models/read/ready")[0] == 200


def test_models_are_loaded_before_those_that_ask_them(repository: Path) -> None:
    write_pipeline(repository, "outer", READ.replace("model: detect,", "model: read,"))
    write_pipeline(repository, "a", READ.replace("model: detect,", "model: b,"))
    write_pipeline(repository, "b", READ.replace("model: detect,", "model: a,"))
    found = {each.name: [each] for each in scan(repository)}
    rounds = in_rounds(found)
    assert rounds == [["crop", "detect", "nothing", "recognize"], ["read"], ["outer"], ["a", "b"]]
    pipelines = {name: found[name] for name in ("outer", "read")}
    assert concerned(pipelines, {"detect"}) == ["read", "outer"]
    assert concerned(pipelines, {"somebody"}) == []


@needs_core
def test_a_pipeline_is_inspected_without_its_models(repository: Path) -> None:
    import subprocess
    import sys

    told = subprocess.run(
        [sys.executable, "-m", "kingpole", "inspect", str(repository / "read")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "pipeline" in told.stdout
    assert json.dumps("texts").strip('"') in told.stdout
