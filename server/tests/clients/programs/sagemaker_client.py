"""What botocore's client of SageMaker's runtime does with the server."""

from __future__ import annotations

import io
import json
from typing import Any

import botocore.session
import numpy as np
import report
from botocore.config import Config
from botocore.exceptions import ClientError
from served import MLP, WORKER_MLP, check_equal, check_named, mlp, rows

BINARY = "application/vnd.sagemaker-triton.binary+json"


def invoke(address: str, body: Any, content_type: str = "application/json", **parameters: Any) -> Any:
    runtime = botocore.session.get_session().create_client(
        "sagemaker-runtime",
        region_name="eu-west-1",
        endpoint_url=f"http://{address}",
        aws_access_key_id="nobody",
        aws_secret_access_key="none",
        config=Config(retries={"max_attempts": 1}, read_timeout=30),
    )
    parameters.setdefault("EndpointName", MLP)
    return runtime.invoke_endpoint(Body=body, ContentType=content_type, **parameters)


def answer(response: Any) -> Any:
    return json.loads(response["Body"].read())


def test_rows_are_predicted(address: str) -> None:
    response = invoke(address, json.dumps({"instances": rows(2).tolist()}))
    assert response["ContentType"] == "application/json"
    assert answer(response) == {"predictions": mlp(rows(2)).tolist()}


def test_csv_is_predicted(address: str) -> None:
    csv = "\n".join(",".join(map(str, row)) for row in rows(3).tolist())
    assert answer(invoke(address, csv, "text/csv")) == {"predictions": mlp(rows(3)).tolist()}


def test_an_array_is_predicted_and_comes_back(address: str) -> None:
    with io.BytesIO() as file:
        np.save(file, rows(3))
        body = file.getvalue()
    response = invoke(address, body, "application/x-npy", Accept="application/x-npy")
    assert response["ContentType"] == "application/x-npy"
    check_equal(np.load(io.BytesIO(response["Body"].read())), mlp(rows(3)))
    assert answer(invoke(address, body, "application/x-npy")) == {"predictions": mlp(rows(3)).tolist()}


def test_the_target_model_goes_before_the_endpoint(address: str) -> None:
    body = json.dumps({"instances": rows(1).tolist()})
    for target in (WORKER_MLP, f"{WORKER_MLP}.tar.gz"):
        response = invoke(address, body, EndpointName="any", TargetModel=target)
        assert answer(response) == {"predictions": mlp(rows(1)).tolist()}


def test_open_inference_is_inferred_as_json_and_binary(address: str) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [2, 4]}
    response = answer(invoke(address, json.dumps({"inputs": [{**x, "data": rows(2).flatten().tolist()}]})))
    assert response["outputs"][0]["data"] == mlp(rows(2)).flatten().tolist()
    header = json.dumps(
        {
            "inputs": [{**x, "parameters": {"binary_data_size": 32}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    binary = invoke(address, header + rows(2).tobytes(), f"{BINARY};json-header-size={len(header)}")
    length = int(binary["ContentType"].removeprefix(f"{BINARY};json-header-size="))
    assert binary["Body"].read()[length:] == mlp(rows(2)).tobytes()


def test_a_fault_has_its_kind_and_its_text(address: str) -> None:
    for body, endpoint, kind, status, parts in (
        ({"instances": [[1, 2, 3, 4]]}, "nobody", "ValidationError", 404, ("Request for unknown model",)),
        ({"instances": [[1, 2]]}, MLP, "ModelError", 400, ("'x'", "[1,2]", "[-1,4]")),
    ):
        try:
            invoke(address, json.dumps(body), EndpointName=endpoint)
        except ClientError as error:
            assert error.response["Error"]["Code"] == kind, error.response
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
            check_named(error.response["Error"]["Message"], *parts)
        else:
            raise AssertionError(f"{parts} was not refused")


if __name__ == "__main__":
    report.run(dict(globals()))
