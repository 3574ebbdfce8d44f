"""Cases about what is asked and answered: values, names, errors. Knows no time and no faulty transport."""

from __future__ import annotations

import json
from typing import Any

import kingpole_client
import numpy as np
from kingpole_client import InvalidArgument, NotFound

from conformance.kinds import Array, Client, connect, demand, refused

X = np.arange(6, dtype=np.float32).reshape(2, 3)
PARAMETERS = {"flag": True, "negative": -7, "big": 2**63 + 1, "fraction": 0.25, "text": "ünï"}


def _integers(dtype: Any) -> Array:
    limits = np.iinfo(dtype)
    return np.array([[limits.min, limits.max, 0], [1, 2, limits.max - 1]], dtype)


def _floats(dtype: Any) -> Array:
    limits = np.finfo(dtype)
    return np.array([[limits.min, limits.max, np.nan], [np.inf, -np.inf, -0.0]], dtype)


def tensors() -> dict[str, Array | kingpole_client.BFloat16]:
    """Return a tensor of shape (2, 3) for each datatype, by the name of its model."""
    integers = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    floats = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}
    # Least and greatest, a NaN, infinities and -0, as the upper halves of FP32.
    bf16 = np.array([[0xFF7F, 0x7F7F, 0x7FC0], [0x7F80, 0xFF80, 0x8000]], np.uint16)
    return {
        "bool": np.array([[True, False, True], [False, False, True]]),
        **{name: _integers(name) for name in integers},
        **{name: _floats(dtype) for name, dtype in floats.items()},
        "bf16": kingpole_client.BFloat16(bf16),
        "bytes": np.array(
            [[b"", "Grüße".encode(), b"\xff\xfe\x00"], [b"a", b"\x00" * 9, b"z" * 300]], object
        ),
    }


def _bits(array: Array) -> tuple[tuple[int, ...], object]:
    return array.shape, array.tolist() if array.dtype == object else array.tobytes()


async def server(client: Client) -> None:
    """Who is there, and what it has."""
    demand(await client.ask("live") is True, "live() is not true")
    demand(await client.ask("ready") is True, "ready() is not true")
    demand(await client.ask("ready", "echo-fp32") is True, "ready('echo-fp32') is not true")
    await _not_ready(client, "absent")
    who = await client.ask("metadata")
    demand(who.name == "kingpole" and bool(who.version), f"the server is {who}")
    demand("binary_tensor_data" in who.extensions, f"its extensions are {who.extensions}")
    await _described(client)


async def _not_ready(client: Client, model: str) -> None:
    """Over HTTP a model that is not there is not ready; over frames it is not found."""
    try:
        is_ready = await client.ask("ready", model)
    except NotFound as error:
        demand(model in error.message, f"NOT_FOUND does not name {model}: {error.message}")
        return
    demand(is_ready is False, f"ready({model!r}) is {is_ready}")


async def _described(client: Client) -> None:
    model = await client.ask("metadata", "echo-fp32")
    found = (model.name, list(model.versions), [vars(spec) for spec in (*model.inputs, *model.outputs)])
    spec = {"name": "x", "datatype": "FP32", "shape": (-1, -1), "optional": False}
    expected = ("echo-fp32", ["1"], [spec, spec])
    demand(found == expected, f"metadata('echo-fp32'): expected {expected}, got {found}")
    await refused(client.ask("metadata", "absent"), NotFound, "absent")


async def datatypes(client: Client) -> None:
    """Every datatype, bit by bit."""
    for name, tensor in tensors().items():
        sent = tensor.bits if isinstance(tensor, kingpole_client.BFloat16) else tensor
        response = await client.infer(f"echo-{name}", {"x": tensor})
        demand(list(response.outputs) == ["x"], f"{name}: the outputs are {list(response.outputs)}")
        expected, found = _bits(sent), _bits(response["x"])
        demand(expected == found, f"{name}: expected {expected}, got {found}")


async def shapes(client: Client) -> None:
    """Scalars, no elements, and many dimensions."""
    asked: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("scalar", ()), ("echo-fp32", (0, 3)), ("echo-fp32", (1, 1)), ("echo-fp32", (3, 0)),
        ("rank8", (1, 2, 1, 2, 1, 2, 1, 2)), ("echo-bytes", (0, 2)),
    )  # fmt: skip
    for model, shape in asked:
        size = int(np.prod(shape))
        numbers = np.arange(size, dtype=np.float32).reshape(shape) + 1
        tensor = numbers if model != "echo-bytes" else np.empty(shape, object)
        found = (await client.infer(model, {"x": tensor}))["x"]
        demand(_bits(found) == _bits(np.asarray(tensor)), f"{model} {shape}: got {found.shape} {found!r}")


async def parameters(client: Client) -> None:
    """What goes along with tensors, and which outputs come back."""
    response = await client.infer("describe", {"x": X}, parameters=PARAMETERS, id="id-7", version="1")
    said = json.loads(response["text"][0])
    demand(said == PARAMETERS, f"expected the parameters {PARAMETERS}, got {said}")
    demand(type(said["flag"]) is bool and type(said["negative"]) is int, f"the kinds have changed: {said}")
    named = (response.id, response.version, response.model)
    demand(named == ("id-7", "1", "describe"), f"expected id-7, version 1, describe; got {named}")
    for wanted in (["b"], ["b", "a"]):
        outputs = (await client.infer("twice", {"x": X}, outputs=wanted)).outputs
        demand(list(outputs) == wanted, f"asked for {wanted}, got {list(outputs)}")
        right = all(np.array_equal(outputs[name], X * (2 if name == "b" else 1)) for name in wanted)
        demand(right, f"the outputs of twice are {outputs}")
    await refused(client.infer("describe", {"x": X}, version="9"), NotFound, "9")


async def wrong_requests(client: Client) -> None:
    """The five that are the caller's fault."""
    await refused(client.infer("absent", {"x": X}), NotFound, "absent")
    await refused(client.infer("echo-fp32", {"x": X.astype(np.int64)}), InvalidArgument, "x")
    await refused(client.infer("echo-fp32", {"x": X[0]}), InvalidArgument, "x")
    await refused(client.infer("echo-fp32", {"x": X, "zebra": X}), InvalidArgument, "zebra")
    await refused(client.infer("echo-fp32", {}), InvalidArgument, "x")


async def errors(client: Client) -> None:
    """Every code that a model may raise, with its text; the client goes on."""
    await wrong_requests(client)
    raised = (
        kingpole_client.InvalidArgument, kingpole_client.NotFound, kingpole_client.ResourceExhausted,
        kingpole_client.FailedPrecondition, kingpole_client.Unavailable, kingpole_client.Internal,
    )  # fmt: skip
    for kind in raised:
        text = f"it failed with {kind.code}: ünï"
        message = await refused(
            client.infer("fails", {"x": X}, parameters={"code": kind.code, "text": text}), kind
        )
        demand(message == text, f"expected the text {text!r}, got {message!r}")
    await echoes(client)


async def echoes(client: Client, **options: Any) -> None:
    """One good answer, to see that all is well."""
    found = (await client.infer("echo-fp32", {"x": X}, **options))["x"]
    demand(np.array_equal(found, X), f"echo-fp32 gave {found}")


async def open_inference(client: Client) -> None:
    """The same calls to a server that knows no frames."""
    await datatypes(client)
    await shapes(client)
    demand(await client.ask("ready", "echo-fp32") is True, "ready('echo-fp32') is not true")
    await _not_ready(client, "absent")
    await _described(client)
    await wrong_requests(client)


async def token(url: str) -> None:
    """The bearer token arrives."""
    client = await connect(url, token="abc")  # noqa: S106 - it opens nothing
    said = json.loads((await client.infer("describe", {"x": X}))["text"][0])
    expected = "Bearer abc"
    demand(said.get("authorization") == expected, f"expected authorization {expected!r}, got {said}")
    await client.close()


async def tls(url: str, authority: bytes) -> None:
    """Trusted with the authority, and refused with a reason without it."""
    client = await connect(url, root_certificates=authority)
    await echoes(client)
    await client.close()
    client = await connect(url, timeout_us=20_000_000)
    text = await refused(client.infer("echo-fp32", {"x": X}), kingpole_client.Unavailable)
    demand("certificate" in text.lower() or "handshake" in text.lower(), f"the text says no reason: {text}")
    await client.close()
