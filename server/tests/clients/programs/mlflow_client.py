"""What MLflow's scoring client does with the server."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import report
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from served import IDENTITY, check_equal, check_named, check_raises, mlp, rows

# The client looks for scipy.sparse, which it can do without, but not without a scipy to look in.
_EMPTY = sys.modules["scipy"] = ModuleType("scipy")
_EMPTY.__path__ = []


def client(address: str) -> Any:
    host, port = address.split(":")
    return ScoringServerClient(host, port)


def test_the_server_is_found_ready(address: str) -> None:
    opened = client(address)
    opened.wait_server_ready(timeout=10)
    opened.ping()
    assert opened.get_version()


def test_a_data_frame_is_scored(address: str) -> None:
    frame = pd.DataFrame(rows(3), columns=["a", "b", "c", "d"])
    response = client(address).invoke(frame)
    check_equal(response.get_predictions("ndarray", "float32"), mlp(rows(3)))
    check_equal(response.get_predictions().to_numpy(np.float32), mlp(rows(3)))


def test_an_array_is_scored(address: str) -> None:
    response = client(address).invoke(rows(2))
    check_equal(response.get_predictions("ndarray", "float32"), mlp(rows(2)))


def test_parameters_are_taken(address: str) -> None:
    response = client(address).invoke(rows(2), params={"temperature": 0.5})
    check_equal(response.get_predictions("ndarray", "float32"), mlp(rows(2)))


def test_records_and_csv_are_scored(address: str) -> None:
    frame = pd.DataFrame(rows(2), columns=["a", "b", "c", "d"])
    url = f"http://{address}/invocations"
    records = requests.post(url, json={"dataframe_records": frame.to_dict(orient="records")}, timeout=30)
    assert records.json() == {"predictions": mlp(rows(2)).tolist()}, records.text
    csv = requests.post(url, data=frame.to_csv(index=False), headers={"Content-Type": "text/csv"}, timeout=30)
    assert csv.json() == {"predictions": mlp(rows(2)).tolist()}, csv.text


def test_columns_are_inputs_and_outputs_are_columns(address: str) -> None:
    frame = pd.DataFrame({"counts": [1, 2], "texts": ["a", "b"], "floats": [0.5, 1.5], "halves": [2.0, 3.0]})
    url = f"http://{address}/models/{IDENTITY}/invoke"
    answered = requests.post(url, json={"dataframe_split": frame.to_dict(orient="split")}, timeout=30)
    assert answered.status_code == 200, answered.text
    assert answered.json()["predictions"] == [
        {"floats_out": [floats], "halves_out": [halves], "texts_out": [texts], "counts_out": [counts]}
        for counts, texts, floats, halves in frame.itertuples(index=False)
    ]


def test_a_fault_is_told(address: str) -> None:
    opened = client(address)
    check_raises(Exception, lambda: opened.invoke(rows(2)[:, :3]), "error code 400", "'x'", "[2,3]", "[-1,4]")
    check_raises(
        Exception, lambda: opened.invoke(pd.DataFrame({"a": ["x"]})), "error code 400", "'x'", "[0,0]"
    )
    refused = requests.post(f"http://{address}/invocations", json={"data": [1]}, timeout=30)
    check_named(refused.json()["message"], "dataframe_split")


if __name__ == "__main__":
    report.run(dict(globals()))
