"""What tritonclient does with named regions of shared memory, over HTTP and over gRPC."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import report
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
import tritonclient.utils.shared_memory as shm
from served import DATATYPES, IDENTITY, MLP, WORKER_MLP, check_equal, check_raises, identity_inputs, mlp, rows
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, serialized_byte_size

BOTH = (over_http, over_grpc)
REGION_BYTES = 1 << 16
CODES = {over_http: {"NOT_FOUND": "404", "INVALID_ARGUMENT": "400", "ALREADY_EXISTS": "400"}}


@contextlib.contextmanager
def region(triton: Any, address: str, nbytes: int = REGION_BYTES) -> Iterator[tuple[Any, Any, str]]:
    """A client, memory of ours and its name at the server; all are gone afterwards."""
    name = f"kingpole_test_{os.getpid()}"
    handle = shm.create_shared_memory_region(name, f"/{name}", nbytes)
    client = triton.InferenceServerClient(address)
    try:
        client.register_system_shared_memory(name, f"/{name}", nbytes)
        yield client, handle, name
        client.unregister_system_shared_memory(name)
    finally:
        client.close()
        shm.destroy_shared_memory_region(handle)


def refusal(triton: Any, call: Any, code: str, *parts: str) -> None:
    error = check_raises(InferenceServerException, call, *parts)
    assert isinstance(error, InferenceServerException)
    expected = CODES[triton][code] if triton in CODES else f"StatusCode.{code}"
    assert str(error.status()) == expected, error.status()


def placed(
    triton: Any, name: str, tensor: Any, datatype: str, region_name: str, nbytes: int, offset: int
) -> Any:
    made = triton.InferInput(name, list(tensor.shape), datatype)
    made.set_shared_memory(region_name, nbytes, offset)
    return made


def wanted(triton: Any, name: str, region_name: str, nbytes: int, offset: int) -> Any:
    made = triton.InferRequestedOutput(name)
    made.set_shared_memory(region_name, nbytes, offset)
    return made


def test_inputs_and_outputs_are_in_a_region(address: str) -> None:
    for triton in BOTH:
        with region(triton, address) as (client, handle, name):
            for model in (MLP, WORKER_MLP):
                x = rows(6)
                shm.set_shared_memory_region(handle, [x], 128)
                result = client.infer(
                    model,
                    [placed(triton, "x", x, "FP32", name, x.nbytes, 128)],
                    outputs=[wanted(triton, "y", name, 1024, 4096)],
                )
                check_equal(shm.get_contents_as_numpy(handle, np.float32, [6, 3], 4096), mlp(x))
                said = result.get_output("y")
                shape = said["shape"] if isinstance(said, dict) else list(said.shape)
                assert shape == [6, 3]


def test_every_datatype_and_some_tensors_in_the_message(address: str) -> None:
    for triton in BOTH:
        with region(triton, address) as (client, handle, name):
            inputs, outputs, offset = [], [], 0
            tensors = identity_inputs()
            for each, tensor in tensors.items():
                if each == "counts":
                    inputs.append(triton.InferInput(each, list(tensor.shape), DATATYPES[each]))
                    inputs[-1].set_data_from_numpy(tensor)
                    outputs.append(triton.InferRequestedOutput(f"{each}_out"))
                    continue
                stored = serialize_byte_tensor(tensor) if tensor.dtype == object else tensor
                nbytes = serialized_byte_size(stored) if tensor.dtype == object else tensor.nbytes
                shm.set_shared_memory_region(handle, [stored], offset)
                inputs.append(placed(triton, each, tensor, DATATYPES[each], name, nbytes, offset))
                outputs.append(wanted(triton, f"{each}_out", name, 4096, 32768 + offset))
                offset += 4096
            result = client.infer(IDENTITY, inputs, outputs=outputs)
            check_equal(result.as_numpy("counts_out"), tensors["counts"])
            offset = 32768
            for each in ("floats", "halves", "texts"):
                tensor = tensors[each]
                given = shm.get_contents_as_numpy(handle, tensor.dtype, list(tensor.shape), offset)
                check_equal(given, tensor)
                offset += 4096


def test_regions_are_listed_by_name(address: str) -> None:
    with region(over_http, address) as (client, _, name):
        row = {"name": name, "key": f"/{name}", "offset": 0, "byte_size": REGION_BYTES}
        assert client.get_system_shared_memory_status(name) == [row]
        assert row in client.get_system_shared_memory_status()
    with region(over_grpc, address) as (client, _, name):
        status = client.get_system_shared_memory_status(name, as_json=True)
        assert status["regions"][name]["byte_size"] == str(REGION_BYTES)
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
        client.register_system_shared_memory(name, f"/{name}", REGION_BYTES)


def test_what_is_wrong_is_refused_as_triton_does(address: str) -> None:
    for triton in BOTH:
        with region(triton, address) as (client, _, name):
            x = rows(1)
            register = client.register_system_shared_memory
            refusal(triton, partial(register, name, f"/{name}", 8), "ALREADY_EXISTS", name)
            refusal(triton, partial(client.get_system_shared_memory_status, "nobody"), "NOT_FOUND", "nobody")
            for key, nbytes, offset in (
                ("/kingpole_nobody_made_this", 8, 0),
                ("/../../etc/passwd", 8, 0),
                (f"/{name}", REGION_BYTES + 1, 0),
                (f"/{name}", 8, 2**64 - 4),
            ):
                refusal(triton, partial(register, "r", key, nbytes, offset), "INVALID_ARGUMENT")
            for region_name, nbytes, offset, code in (
                ("nobody", x.nbytes, 0, "NOT_FOUND"),
                (name, x.nbytes, REGION_BYTES - 4, "INVALID_ARGUMENT"),
                (name, x.nbytes, 2**62, "INVALID_ARGUMENT"),
                (name, x.nbytes + 1, 0, "INVALID_ARGUMENT"),
            ):
                wrong = placed(triton, "x", x, "FP32", region_name, nbytes, offset)
                refusal(triton, partial(client.infer, MLP, [wrong]), code)
            good = placed(triton, "x", x, "FP32", name, x.nbytes, 0)
            small = wanted(triton, "y", name, 11, 0)
            call = partial(client.infer, MLP, [good], outputs=[small])
            refusal(triton, call, "INVALID_ARGUMENT", "12 bytes")
            # One that nobody knows is as good as unregistered.
            client.unregister_system_shared_memory("nobody")


def test_memory_of_a_gpu_is_refused_saying_why(address: str) -> None:
    for triton in BOTH:
        client = triton.InferenceServerClient(address)
        status = client.get_cuda_shared_memory_status()
        assert status == [] or not status.regions
        call = partial(client.register_cuda_shared_memory, "r", b"QUFBQQ==", 0, 8)
        check_raises(InferenceServerException, call, "this build has no CUDA")
        client.unregister_cuda_shared_memory()
        client.close()


if __name__ == "__main__":
    report.run(dict(globals()))
