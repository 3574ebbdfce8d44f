"""What graphpipe 1.0.4 does with the server."""

from __future__ import annotations

import numpy as np
import report
import requests
from graphpipe import convert, remote
from served import (
    IDENTITY,
    MLP,
    WORKER_MLP,
    check_equal,
    check_named,
    check_raises,
    identity_inputs,
    mlp,
    rows,
)


def test_one_row_and_many_are_inferred_by_the_default_model(address: str) -> None:
    for count in (1, 5):
        check_equal(remote.execute(f"http://{address}", rows(count)), mlp(rows(count)))


def test_input_and_output_can_be_named(address: str) -> None:
    given = remote.execute(f"http://{address}/{MLP}", rows(2), input_name="x", output_name="y")
    check_equal(given, mlp(rows(2)))


def test_a_model_in_a_worker_process_answers_alike(address: str) -> None:
    check_equal(remote.execute(f"http://{address}/{WORKER_MLP}", rows(3)), mlp(rows(3)))


def test_paths_of_other_servers_take_it_too(address: str) -> None:
    for path in ("invocations", f"v1/models/{MLP}:predict"):
        check_equal(remote.execute(f"http://{address}/{path}", rows(2)), mlp(rows(2)))


def test_a_version_can_be_named(address: str) -> None:
    check_equal(remote.execute(f"http://{address}/models/{MLP}/versions/1", rows(1)), mlp(rows(1)))


def test_every_datatype_comes_back_unchanged_in_the_order_asked_for(address: str) -> None:
    inputs = identity_inputs()
    # The client writes the elements of an array of fixed-width text, but of no other.
    inputs["texts"] = inputs["texts"].astype(np.str_)
    names = list(inputs)
    wanted = [f"{name}_out" for name in reversed(names)]
    uri = f"http://{address}/models/{IDENTITY}"
    outputs = remote.execute_multi(uri, list(inputs.values()), names, wanted, config='{"ignored": true}')
    assert len(outputs) == len(wanted)
    for name, output in zip(reversed(names), outputs, strict=True):
        expected = inputs[name].astype(object) if name == "texts" else inputs[name]
        check_equal(output.astype(object) if name == "texts" else output, expected)


def test_metadata_says_names_shapes_and_types(address: str) -> None:
    uri = f"http://{address}/{MLP}"
    assert remote.metadata(uri).Name() == MLP.encode()
    assert remote.get_input_names(uri) == ["x"]
    assert remote.get_output_names(uri) == ["y"]
    assert remote.get_input_shapes(uri) == [[None, 4]]
    assert remote.get_output_shapes(uri) == [[None, 3]]
    assert remote.get_input_types(uri) == [np.float32]
    assert remote.get_output_types(uri) == [np.float32]


def test_metadata_lists_every_tensor_of_a_model(address: str) -> None:
    uri = f"http://{address}/{IDENTITY}"
    assert remote.get_input_names(uri) == list(identity_inputs())
    assert remote.get_input_types(uri)[0] == np.float32
    assert remote.get_input_shapes(uri) == [[None, None]] * 4


def test_an_unknown_model_is_an_http_error(address: str) -> None:
    def ask() -> None:
        remote.execute(f"http://{address}/nobody", rows(1))

    check_raises(requests.HTTPError, ask, "404")


def test_a_wrong_shape_is_answered_by_400_with_a_text(address: str) -> None:
    wrong = np.zeros((1, 5), np.float32)

    def ask() -> None:
        remote.execute(f"http://{address}/{MLP}", wrong)

    check_raises(requests.HTTPError, ask, "400")
    # The client keeps the text to itself: read it as it was sent.
    body = convert.serialize_infer_request(convert.InferReq(None, [wrong], None, None))
    refused = requests.post(f"http://{address}/{MLP}", data=body, timeout=30)
    assert refused.headers["content-type"].startswith("text/plain")
    check_named(refused.text, "'x'", "[1,5]", "[-1,4]")


def test_a_wrong_datatype_is_answered_by_400(address: str) -> None:
    def ask() -> None:
        remote.execute(f"http://{address}/{MLP}", np.zeros((1, 4), np.float64))

    check_raises(requests.HTTPError, ask, "400")


if __name__ == "__main__":
    report.run(dict(globals()))
