"""Every golden vector of the frame: whole, byte by byte, in odd pieces; and what is encoded here."""

import json
from pathlib import Path

import numpy as np
import pytest
from kingpole_client import InferResponse, KingpoleError, ModelMetadata, ServerMetadata, _messages
from kingpole_client._arrays import DATATYPES, decode_tensor, encode_tensor
from kingpole_client._flatbuffer import Table
from kingpole_client._frame import Frame, FrameAssembler, split_frame
from kingpole_client._values import Credit, Done, Sequence

DIRECTORY = Path(__file__).parents[3] / "protocol" / "vectors"
VECTORS = {path.stem: json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("frame-*.json"))}
GOOD = [name for name, vector in VECTORS.items() if "error" not in vector]
MALFORMED = [name for name, vector in VECTORS.items() if "error" in vector]
# Asked by clients, so this one writes them and never reads them.
ASKED = (
    "request", "cancel", "ready_request", "server_info_request", "metadata_request", "hand_over", "release",
)  # fmt: skip

if not VECTORS:
    pytest.skip(
        "the vectors are not here: they are in the repository, not in the package", allow_module_level=True
    )


def message_of(vector) -> tuple[str, object]:
    [(kind, value)] = (
        (kind, value)
        for kind, value in vector["value"]["message"].items()
        if kind not in ("shared", "places")
    )
    return kind, value


def read_whole(data: bytes) -> Frame:
    return split_frame(memoryview(data))


def read_pieces(data: bytes, piece_bytes: int) -> Frame:
    assembler = FrameAssembler()
    frames = []
    for start in range(0, len(data), piece_bytes):
        frames += assembler.feed(memoryview(data[start : start + piece_bytes]))
    assert assembler.idle
    [frame] = frames
    return frame


def parameters_of(expected) -> dict:
    return {parameter["name"]: parameter["value"] for parameter in expected}


def check_answer(kind: str, expected, answer) -> None:
    if kind == "response":
        assert isinstance(answer, InferResponse)
        assert (answer.model, answer.version, answer.id) == (
            expected["model"],
            expected["version"],
            expected["id"],
        )
        assert answer.stage == expected.get("stage", "only")
        assert answer.parameters == parameters_of(expected["parameters"])
        assert list(answer.outputs) == [tensor["name"] for tensor in expected["outputs"]]
        for tensor in expected["outputs"]:
            again = encode_tensor(tensor["name"], answer.outputs[tensor["name"]])
            if tensor["datatype"] == "BF16" and DATATYPES[again.datatype] == "UINT16":
                assert answer.outputs[tensor["name"]].dtype == np.uint16, "without ml_dtypes: the bits"
            else:
                assert DATATYPES[again.datatype] == tensor["datatype"]
            assert (list(again.shape), again.data.tobytes().hex()) == (tensor["shape"], tensor["data_hex"])
    elif kind == "error":
        assert isinstance(answer, KingpoleError)
        assert (answer.code, answer.message, answer.id, answer.retry_after_ms) == (
            expected["code"], expected["message"], expected["id"], expected["retry_after_ms"] or None,
        )  # fmt: skip
    elif kind == "credit":
        assert answer == Credit(expected["requests"])
    elif kind == "done":
        assert answer == Done()
    elif kind == "ready":
        assert answer is expected
    elif kind == "server_info":
        assert isinstance(answer, ServerMetadata)
        assert {**vars(answer), "extensions": list(answer.extensions)} == expected
    else:
        assert kind == "metadata"
        assert isinstance(answer, ModelMetadata)
        specs = {
            side: [{**vars(spec), "shape": list(spec.shape)} for spec in getattr(answer, side)]
            for side in ("inputs", "outputs")
        }
        assert {**vars(answer), **specs, "versions": list(answer.versions)} == expected


@pytest.mark.parametrize("piece_bytes", [0, 1, 3, 17, 64, 1000])
@pytest.mark.parametrize("name", GOOD)
def test_a_vector_decodes_to_its_value(name, piece_bytes):
    vector = VECTORS[name]
    data = bytes.fromhex(vector["hex"])
    frame = read_pieces(data, piece_bytes) if piece_bytes else read_whole(data)
    assert _messages.exchange_of(frame) == vector["value"]["exchange"]
    kind, expected = message_of(vector)
    if kind == "request":
        assert describe_request(frame) == without_output_parameters(expected)
    elif kind in ASKED or vector["value"]["message"].get("shared"):
        # What is in memory that this client never shared is nowhere.
        with pytest.raises(KingpoleError):
            _messages.decode_answer(frame)
    else:
        check_answer(kind, expected, _messages.decode_answer(frame))


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_vector_is_refused(name):
    data = bytes.fromhex(VECTORS[name]["hex"])
    with pytest.raises(KingpoleError):
        _messages.decode_answer(read_whole(data))
    frames: list[Frame] = []
    try:
        for position in range(len(data)):
            frames += FrameAssembler().feed(memoryview(data[: position + 1]))
    except KingpoleError:
        return
    assert not frames, "a stream waits for the rest of a frame that is cut"


def describe_tensor(tensor: Table, payloads: list[memoryview]) -> dict:
    payload, offset, nbytes = tensor.uint32(4), tensor.uint64(5), tensor.uint64(6)
    data = b"" if tensor.uint8(3) else bytes(payloads[payload][offset : offset + nbytes])
    shape = list(tensor.int64s(2))
    return {
        "name": tensor.string(0) or "",
        "datatype": DATATYPES[tensor.uint8(1)],
        "shape": shape,
        "data_hex": data.hex(),
    }


def describe_request(frame: Frame) -> dict:
    table = frame.header.table(1)
    assert frame.header.uint8(0) == 1
    assert table is not None
    sequence = table.uint64(8) or table.string(9)
    return {
        **(
            {"sequence": {"id": sequence, "start": table.uint8(10) != 0, "end": table.uint8(11) != 0}}
            if sequence
            else {}
        ),
        "model": table.string(0) or "",
        "version": table.string(1),
        "id": table.string(2),
        "timeout_us": table.uint64(3) or None,
        "priority": table.uint32(4),
        "inputs": [describe_tensor(tensor, frame.payloads) for tensor in table.tables(5)],
        "outputs": [output.string(0) or "" for output in table.tables(6)],
        "parameters": _messages._parameters(table.tables(7)),
    }


def without_output_parameters(expected) -> dict:
    outputs = [output["name"] for output in expected["outputs"]]
    return {**expected, "outputs": outputs, "parameters": parameters_of(expected["parameters"])}


REQUESTS = [
    n for n in GOOD if message_of(VECTORS[n])[0] == "request" and not n.endswith(("-shared", "-in-place"))
]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_encoded_here_reads_as_the_vector_says(name):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed") if name.endswith("bf16") else None
    expected = without_output_parameters(message_of(VECTORS[name])[1])
    inputs = {}
    for tensor in expected["inputs"]:
        data = memoryview(bytes.fromhex(tensor["data_hex"]))
        datatype = DATATYPES.index(tensor["datatype"])
        inputs[tensor["name"]] = decode_tensor(tensor["name"], datatype, tuple(tensor["shape"]), data)
    request = _messages.InferRequest(
        expected["model"], inputs, outputs=expected["outputs"], version=expected["version"],
        id=expected["id"],
        parameters=expected["parameters"], timeout_us=expected["timeout_us"], priority=expected["priority"],
        sequence=Sequence(**expected["sequence"]) if "sequence" in expected else None,
    )  # fmt: skip
    frame = read_whole(b"".join(request.buffers(7)))
    assert describe_request(frame) == expected


def test_what_else_is_asked_reads_as_the_vectors_say():
    cancel = read_whole(b"".join(_messages.encode_cancel(7)))
    assert (cancel.header.uint8(0), _messages.exchange_of(cancel)) == (5, 7)
    info = read_whole(b"".join(_messages.encode_server_info_request(7)))
    assert (info.header.uint8(0), _messages.exchange_of(info)) == (8, 7)
    handed = b"".join(_messages.encode_hand_over(4, 1 << 20, 7))
    table = read_whole(handed).header.table(1)
    golden = read_whole(bytes.fromhex(VECTORS["frame-hand-over"]["hex"])).header.table(1)
    assert table is not None
    assert golden is not None
    assert (table.uint32(0), table.uint64(1)) == (golden.uint32(0), golden.uint64(1)) == (4, 1 << 20)
    for encode, name in (
        (_messages.encode_ready_request, "frame-ready-request"),
        (_messages.encode_metadata_request, "frame-metadata-request"),
    ):
        vector = VECTORS[name]
        _, expected = message_of(vector)
        written = read_whole(b"".join(encode(expected["model"], expected["version"], 7)))
        golden = read_whole(bytes.fromhex(vector["hex"]))
        assert written.header.uint8(0) == golden.header.uint8(0)
        for frame in (written, golden):
            table = frame.header.table(1)
            assert table is not None
            assert (table.string(0), table.string(1)) == (expected["model"], expected["version"])
