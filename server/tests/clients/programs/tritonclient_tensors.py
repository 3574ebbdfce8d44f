"""Every public call of what tritonclient's clients take and give: tensors, results, functions beside them."""

from __future__ import annotations

import importlib
import inspect
import uuid
from typing import Any

import numpy as np
import report
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
import tritonclient.utils as triton_utils
import tritonclient.utils.shared_memory as shm
from recording import made, public, record
from served import MLP, check_equal, check_named, check_raises, mlp, rows
from tritonclient.utils import InferenceServerException


def test_every_call_of_the_tensors_and_results(address: str) -> None:
    name = f"kingpole_surface_{uuid.uuid4().hex}"
    region = shm.create_shared_memory_region(name, f"/{name}", 4096)
    try:
        for module in (over_http, over_grpc):
            client = module.InferenceServerClient(address)
            client.register_system_shared_memory(name, f"/{name}", 4096)
            given = module.InferInput("x", [1, 1], "FP32")
            given.set_shape([2, 4])
            assert (given.name(), given.datatype(), given.shape()) == ("x", "FP32", [2, 4])
            shm.set_shared_memory_region(region, [rows(2)], 64)
            given.set_shared_memory(name, 32, 64)
            wanted = module.InferRequestedOutput("y")
            assert wanted.name() == "y"
            wanted.set_shared_memory(name, 512, 1024)
            result = client.infer(MLP, [given], outputs=[wanted])
            assert result.get_output("y") is not None
            assert result.get_output("z") is None
            check_equal(shm.get_contents_as_numpy(region, np.float32, [2, 3], 1024), mlp(rows(2)))
            # From here on both travel again.
            given.set_data_from_numpy(rows(2))
            wanted.unset_shared_memory()
            result = client.infer(MLP, [given], outputs=[wanted])
            check_equal(result.as_numpy("y"), mlp(rows(2)))
            said = result.get_response()
            assert (said["model_name"] if isinstance(said, dict) else said.model_name) == MLP
            client.unregister_system_shared_memory(name)
            client.close()
    finally:
        shm.destroy_shared_memory_region(region)
    client = over_http.InferenceServerClient(address)
    given = over_http.InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(rows(2))
    assert client.async_infer(MLP, [given]).get_result().as_numpy("y").shape == (2, 3)
    client.close()
    body = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}]}'
    assert over_http.InferResult.from_response_body(body).as_numpy("y") == [1.5]
    for label, owner in TENSORS.items():
        left = {each for each in public(owner) if (label, each) not in made}
        assert not left, f"{label}: nobody calls {sorted(left)}"


def test_every_function_of_the_utilities(address: str) -> None:
    texts = np.array(["a", "Grüße"], dtype=object)
    stored = triton_utils.serialize_byte_tensor(texts)
    assert triton_utils.serialized_byte_size(stored) == 4 + 1 + 4 + 7
    assert [each.decode() for each in triton_utils.deserialize_bytes_tensor(stored.item())] == list(texts)
    assert triton_utils.triton_to_np_dtype(triton_utils.np_to_triton_dtype(np.float16)) == np.float16
    check_raises(InferenceServerException, lambda: triton_utils.raise_error("so"), "so")
    client = over_grpc.InferenceServerClient(address)
    error = check_raises(InferenceServerException, lambda: client.get_model_metadata("nobody"), "nobody")
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.NOT_FOUND"
    check_named(error.message(), "Request for unknown model: 'nobody' is not found")
    assert error.debug_details() is not None
    client.close()
    name = f"kingpole_surface_{uuid.uuid4().hex}"
    region = shm.create_shared_memory_region(name, f"/{name}", 16, create_only=True)
    assert f"/{name}" in shm.mapped_shared_memory_regions()
    shm.destroy_shared_memory_region(region)
    for label, owner in FUNCTIONS.items():
        left = {each for each in functions(owner) if (label, each) not in made}
        assert not left, f"{label}: nobody calls {sorted(left)}"


def test_memory_of_a_gpu_needs_cuda_on_the_clients_side_too(address: str) -> None:
    try:
        importlib.import_module("tritonclient.utils.cuda_shared_memory")
    except ImportError as error:
        check_named(str(error), "cuda")
    # Where CUDA is there, the server refuses the region: see `register_cuda_shared_memory` above.
    assert address


def functions(module: Any) -> set[str]:
    """The functions that a module defines and shows."""
    return {
        name
        for name in public(module)
        if inspect.isfunction(getattr(module, name)) and getattr(module, name).__module__ == module.__name__
    }


TENSORS = {
    "http.InferInput": over_http.InferInput,
    "http.InferRequestedOutput": over_http.InferRequestedOutput,
    "http.InferResult": over_http.InferResult,
    "http.InferAsyncRequest": over_http.InferAsyncRequest,
    "grpc.InferInput": over_grpc.InferInput,
    "grpc.InferRequestedOutput": over_grpc.InferRequestedOutput,
    "grpc.InferResult": over_grpc.InferResult,
}
FUNCTIONS = {"utils": triton_utils, "shared_memory": shm}


if __name__ == "__main__":
    for label, owner in (*TENSORS.items(), *FUNCTIONS.items()):
        record(owner, label)
    report.run(dict(globals()))
