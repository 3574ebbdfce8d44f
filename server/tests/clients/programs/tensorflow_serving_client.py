"""What tensorflow-serving-api 2.21 does with the server over gRPC, and its documented REST calls."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import report
import requests
from served import IDENTITY, MLP, WORKER_MLP, check_equal, check_named, identity_inputs, mlp, rows
from tensorflow_messages import (
    DataType,
    TensorProto,
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

TYPES = {
    np.float32: DataType.DT_FLOAT,
    np.float16: DataType.DT_HALF,
    np.int64: DataType.DT_INT64,
    np.object_: DataType.DT_STRING,
}


def tensor(array: Any) -> Any:
    """What `tf.make_tensor_proto` makes of an array."""
    made = TensorProto(dtype=TYPES[array.dtype.type])
    for size in array.shape:
        made.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        made.string_val.extend(text.encode() for text in array.flatten())
    else:
        made.tensor_content = array.tobytes()
    return made


def array(given: Any) -> Any:
    """What `tf.make_ndarray` makes of a tensor."""
    shape = [dim.size for dim in given.tensor_shape.dim]
    if given.dtype == DataType.DT_STRING:
        return np.array(list(given.string_val), dtype=object).reshape(shape)
    kind = next(kind for kind, number in TYPES.items() if number == given.dtype)
    return np.frombuffer(given.tensor_content, kind).reshape(shape)


def request(model: str, **inputs: Any) -> Any:
    made = predict_pb2.PredictRequest()
    made.model_spec.name = model
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(tensor(value) if isinstance(value, np.ndarray) else value)
    return made


def predict(address: str, asked: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(asked, 30)


def test_a_prediction_is_answered_by_either_kind_of_model(address: str) -> None:
    for model in (MLP, WORKER_MLP):
        response = predict(address, request(model, x=rows(3)))
        check_equal(array(response.outputs["y"]), mlp(rows(3)))
        assert response.model_spec.name == model
        assert response.model_spec.version.value == 1


def test_every_datatype_comes_back_unchanged(address: str) -> None:
    outputs = predict(address, request(IDENTITY, **identity_inputs())).outputs
    for name, expected in identity_inputs().items():
        check_equal(array(outputs[f"{name}_out"]), expected)


def test_only_the_outputs_of_the_filter_come_back(address: str) -> None:
    asked = request(IDENTITY, **identity_inputs())
    asked.output_filter.append("texts_out")
    assert list(predict(address, asked).outputs) == ["texts_out"]


def test_a_version_and_the_signature_can_be_named(address: str) -> None:
    asked = request(MLP, x=rows(1))
    asked.model_spec.version.value = 1
    asked.model_spec.signature_name = "serving_default"
    check_equal(array(predict(address, asked).outputs["y"]), mlp(rows(1)))


def test_typed_values_are_read_and_the_last_stands_for_the_rest(address: str) -> None:
    given = TensorProto(dtype=DataType.DT_FLOAT, float_val=[2, 3])
    for size in (2, 4):
        given.tensor_shape.dim.add(size=size)
    expected = np.array([[2, 3, 3, 3], [3, 3, 3, 3]], np.float32)
    check_equal(array(predict(address, request(MLP, x=given)).outputs["y"]), mlp(expected))


def test_a_fault_has_its_code_and_its_text(address: str) -> None:
    unknown = request(MLP, x=rows(1))
    unknown.model_spec.version.value = 7
    for asked, code, parts in (
        (
            request("nobody", x=rows(1)),
            grpc.StatusCode.NOT_FOUND,
            ("Request for unknown model", "nobody"),
        ),
        (unknown, grpc.StatusCode.NOT_FOUND, ("version '7'",)),
        (
            request(MLP, x=np.zeros((1, 5), np.float32)),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("'x'", "[1,5]"),
        ),
        (request(MLP, x=np.zeros((1, 4), np.int64)), grpc.StatusCode.INVALID_ARGUMENT, ("INT64", "FP32")),
        (request(MLP, q=rows(1)), grpc.StatusCode.INVALID_ARGUMENT, ("'q'",)),
    ):
        try:
            predict(address, asked)
        except grpc.RpcError as error:
            assert error.code() == code, error
            check_named(error.details(), *parts)
        else:
            raise AssertionError(f"{parts} was not refused")


def test_classification_is_refused_with_the_way_out(address: str) -> None:
    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name = MLP
    with grpc.insecure_channel(address) as channel:
        try:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(asked, 30)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
            check_named(error.details(), "Predict", ":classify")
        else:
            raise AssertionError("it was not refused")


def test_metadata_is_the_signature(address: str) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = MLP
    with grpc.insecure_channel(address) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(asked, 30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].dtype == DataType.DT_FLOAT
    assert [dim.size for dim in signature.outputs["y"].tensor_shape.dim] == [-1, 3]


def test_the_status_is_available(address: str) -> None:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = MLP
    with grpc.insecure_channel(address) as channel:
        response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(asked, 30)
    [version] = response.model_version_status
    assert version.version == 1
    assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert version.status.error_code == 0


def test_the_documented_rest_calls_are_answered(address: str) -> None:
    base = f"http://{address}/v1/models/{MLP}"
    x, y = rows(2).tolist(), mlp(rows(2)).tolist()
    for url in (f"{base}:predict", f"{base}/versions/1:predict"):
        for instances in (x, [{"x": row} for row in x]):
            answered = requests.post(url, json={"instances": instances}, timeout=30)
            assert answered.json() == {"predictions": y}
        assert requests.post(url, json={"inputs": {"x": x}}, timeout=30).json() == {"outputs": y}
    status = requests.get(base, timeout=30).json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    metadata = requests.get(f"{base}/metadata", timeout=30).json()
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_several_outputs_come_by_name_over_rest(address: str) -> None:
    given = {name: tensor.tolist() for name, tensor in identity_inputs().items()}
    # JSON has no halves: the client's numbers are rounded to them.
    columns = requests.post(
        f"http://{address}/v1/models/{IDENTITY}:predict", json={"inputs": given}, timeout=30
    )
    assert columns.status_code == 200, columns.text
    for name, expected in identity_inputs().items():
        answered = columns.json()["outputs"][f"{name}_out"]
        check_equal(np.array(answered, expected.dtype), expected)
    instances = [{name: value[row] for name, value in given.items()} for row in range(2)]
    by_rows = requests.post(
        f"http://{address}/v1/models/{IDENTITY}:predict", json={"instances": instances}, timeout=30
    )
    assert [row["counts_out"] for row in by_rows.json()["predictions"]] == given["counts"]


def test_a_rest_fault_is_an_object_with_its_text(address: str) -> None:
    for model, instances, status, parts in (
        ("nobody", [[1, 2, 3, 4]], 404, ("Request for unknown model",)),
        (MLP, [[1, 2, 3, 4], [5]], 400, ("'x'", "[1]")),
        (MLP, [[1, 2, 3]], 400, ("'x'", "[1,3]", "[-1,4]")),
        (MLP, [["a", 2, 3, 4]], 400, ("'x'", "[0,0]")),
    ):
        url = f"http://{address}/v1/models/{model}:predict"
        answered = requests.post(url, json={"instances": instances}, timeout=30)
        assert answered.status_code == status, answered.text
        check_named(answered.json()["error"], *parts)


if __name__ == "__main__":
    report.run(dict(globals()))
