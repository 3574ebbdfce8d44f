"""Requests to frames and frames to answers. Knows the schema, not how frames travel.

Writing uses the code that flatc made; reading does not (see `_flatbuffer`). Slots are the fields' positions
in protocol/schema/kingpole.fbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flatbuffers

from kingpole_client import _arrays
from kingpole_client._flatbuffer import MalformedFrame, Table
from kingpole_client._frame import Frame, join_frame
from kingpole_client._generated import kingpole_generated as fb
from kingpole_client._shared_memory import ARENA, Block, Placement, SharedMemory
from kingpole_client._values import (
    NO_SEQUENCE,
    STAGES,
    Credit,
    Done,
    InferResponse,
    ModelMetadata,
    Parameter,
    Sequence,
    ServerMetadata,
    TensorSpec,
    Timing,
)
from kingpole_client.errors import InvalidArgument, KingpoleError, Unimplemented, error_of_number

Answer: TypeAlias = InferResponse | KingpoleError | Credit | Done | bool | ServerMetadata | ModelMetadata
Buffers: TypeAlias = list[bytes | memoryview]


class RequestFields(NamedTuple):
    """What a request says, for a protocol other than the frame."""

    model: str
    version: str | None
    id: str | None
    tensors: list[_arrays.EncodedTensor]
    outputs: list[str]
    parameters: dict[str, Parameter]
    timeout_us: int | None
    priority: int
    sequence: Sequence | None


class InferRequest:
    """One inference asked for, checked and ready to be sent with any exchange number."""

    __slots__ = (
        "_id",
        "_model",
        "_outputs",
        "_parameters",
        "_priority",
        "_sequence",
        "_tensors",
        "_version",
        "timeout_us",
    )

    def __init__(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Parameter] | None = None,
        timeout_us: int | None = None,
        priority: int = 0,
        sequence: Sequence | None = None,
    ) -> None:
        if timeout_us is not None and timeout_us <= 0:
            raise InvalidArgument(f"timeout_us is {timeout_us}, it must be above 0")
        if not 0 <= priority < 1 << 32:
            raise InvalidArgument(f"priority is {priority}, it must be between 0 and 2^32-1")
        if sequence is not None and (not sequence.id or (isinstance(sequence.id, int) and sequence.id < 0)):
            raise InvalidArgument(f"a sequence's id is {sequence.id!r}, it must be above 0 or a text")
        if isinstance(outputs, str):
            raise InvalidArgument("outputs is a list of names, not one name")
        self._model, self._version, self._id = model, version, id
        self._tensors = [_arrays.encode_tensor(name, value) for name, value in inputs.items()]
        self._outputs = list(outputs or ())
        self._parameters = dict(parameters or {})
        self._priority, self._sequence = priority, sequence
        self.timeout_us = timeout_us

    @property
    def id(self) -> str | None:
        """The client's own id."""
        return self._id

    @property
    def fields(self) -> RequestFields:
        """Everything that was asked for."""
        return RequestFields(
            self._model, self._version, self._id, self._tensors, self._outputs, self._parameters,
            self.timeout_us, self._priority, self._sequence,
        )  # fmt: skip

    def place(self, memory: SharedMemory) -> Placement:
        """Put what is worth it into memory shared with the server."""
        return memory.place([t.data for t in self._tensors], self._model, self._version, self._outputs)

    def __call__(self, exchange: int) -> Buffers:
        """Return the frame with everything in it."""
        return self.buffers(exchange)

    def buffers(self, exchange: int, placement: Placement | None = None) -> Buffers:
        """Return the frame as buffers to send one after another; what has a place is not in it."""
        shared = {} if placement is None else placement.inputs
        wanted: list[tuple[str, Block | None]] = [(name, None) for name in self._outputs]
        if placement is not None and placement.outputs:
            wanted = placement.outputs
        payloads: list[memoryview] = []
        tensors: list[int] = []
        builder = flatbuffers.Builder(512)
        model, version, id_ = (
            _text(builder, self._model),
            _text(builder, self._version),
            _text(builder, self._id),
        )
        for index, tensor in enumerate(self._tensors):
            tensors.append(_tensor(builder, len(payloads), tensor, shared.get(index)))
            if index not in shared:
                payloads.append(tensor.data)
        inputs = _offsets(builder, tensors)
        outputs = _offsets(builder, [_requested_output(builder, *each) for each in wanted])
        parameters = _offsets(builder, [_parameter(builder, *pair) for pair in self._parameters.items()])
        sequence = self._sequence or NO_SEQUENCE
        sequence_name = _text(builder, sequence.id) if isinstance(sequence.id, str) else 0
        fb.RequestStart(builder)
        for offset, add in (
            (model, fb.RequestAddModel), (version, fb.RequestAddVersion), (id_, fb.RequestAddId),
            (inputs, fb.RequestAddInputs), (outputs, fb.RequestAddOutputs),
            (parameters, fb.RequestAddParameters), (sequence_name, fb.RequestAddSequenceName),
        ):  # fmt: skip
            if offset:
                add(builder, offset)
        if self.timeout_us is not None:
            fb.RequestAddTimeoutUs(builder, self.timeout_us)
        fb.RequestAddPriority(builder, self._priority)
        if not isinstance(sequence.id, str):
            fb.RequestAddSequenceId(builder, sequence.id)
        fb.RequestAddSequenceStart(builder, sequence.start)
        fb.RequestAddSequenceEnd(builder, sequence.end)
        request = fb.RequestEnd(builder)
        return _finish(builder, fb.Message.Request, request, exchange, payloads)


def encode_cancel(exchange: int) -> Buffers:
    """Say that the answer of an exchange is no longer wanted."""
    builder = flatbuffers.Builder(64)
    fb.CancelStart(builder)
    return _finish(builder, fb.Message.Cancel, fb.CancelEnd(builder), exchange)


def encode_hand_over(arena: int, nbytes: int, exchange: int) -> Buffers:
    """Hand over an arena, whose descriptor must travel with the first byte."""
    builder = flatbuffers.Builder(64)
    fb.HandOverStart(builder)
    fb.HandOverAddArena(builder, arena)
    fb.HandOverAddNbytes(builder, nbytes)
    return _finish(builder, fb.Message.HandOver, fb.HandOverEnd(builder), exchange)


def encode_server_info_request(exchange: int) -> Buffers:
    """Ask who the server is."""
    builder = flatbuffers.Builder(64)
    fb.ServerInfoRequestStart(builder)
    return _finish(builder, fb.Message.ServerInfoRequest, fb.ServerInfoRequestEnd(builder), exchange)


def encode_ready_request(model: str | None, version: str | None, exchange: int) -> Buffers:
    """Ask whether a model, or without one the server, is ready."""
    builder = flatbuffers.Builder(128)
    offsets = _text(builder, model), _text(builder, version)
    fb.ReadyRequestStart(builder)
    _add(builder, offsets, (fb.ReadyRequestAddModel, fb.ReadyRequestAddVersion))
    return _finish(builder, fb.Message.ReadyRequest, fb.ReadyRequestEnd(builder), exchange)


def encode_metadata_request(model: str, version: str | None, exchange: int) -> Buffers:
    """Ask what a model takes and gives."""
    builder = flatbuffers.Builder(128)
    offsets = _text(builder, model), _text(builder, version)
    fb.MetadataRequestStart(builder)
    _add(builder, offsets, (fb.MetadataRequestAddModel, fb.MetadataRequestAddVersion))
    return _finish(builder, fb.Message.MetadataRequest, fb.MetadataRequestEnd(builder), exchange)


def _add(
    builder: flatbuffers.Builder, offsets: tuple[int, ...], adders: tuple[Callable[..., None], ...]
) -> None:
    for offset, add in zip(offsets, adders, strict=True):
        if offset:
            add(builder, offset)


def _text(builder: flatbuffers.Builder, text: str | None) -> int:
    if not text:
        return 0
    try:
        return int(builder.CreateString(text))
    except UnicodeEncodeError:
        raise InvalidArgument(f"{text!r} cannot be written as UTF-8") from None


def _offsets(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    if not offsets:
        return 0
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: flatbuffers.Builder, numbers: tuple[int, ...], prepend: Callable[[int], None]) -> int:
    builder.StartVector(8, len(numbers), 8)
    for number in reversed(numbers):
        prepend(number)
    return int(builder.EndVector())


def _tensor(
    builder: flatbuffers.Builder,
    index: int,
    tensor: _arrays.EncodedTensor,
    place: tuple[int, int] | None,
) -> int:
    name = _text(builder, tensor.name)
    shape = _numbers(builder, tensor.shape, builder.PrependInt64)
    fb.TensorStart(builder)
    if name:
        fb.TensorAddName(builder, name)
    fb.TensorAddDatatype(builder, tensor.datatype)
    fb.TensorAddShape(builder, shape)
    if place is None:
        fb.TensorAddPayload(builder, index)
        fb.TensorAddNbytes(builder, tensor.data.nbytes)
    else:
        fb.TensorAddLocation(builder, fb.Location.SHARED)
        fb.TensorAddPayload(builder, ARENA)
        fb.TensorAddOffset(builder, place[0])
        fb.TensorAddNbytes(builder, place[1])
    return fb.TensorEnd(builder)


def _requested_output(builder: flatbuffers.Builder, name: str, block: Block | None) -> int:
    offset = _text(builder, name)
    fb.RequestedOutputStart(builder)
    if offset:
        fb.RequestedOutputAddName(builder, offset)
    if block is not None:
        fb.RequestedOutputAddLocation(builder, fb.Location.SHARED)
        fb.RequestedOutputAddPayload(builder, ARENA)
        fb.RequestedOutputAddOffset(builder, block.offset)
        fb.RequestedOutputAddNbytes(builder, block.nbytes)
    return fb.RequestedOutputEnd(builder)


def _parameter(builder: flatbuffers.Builder, name: str, value: Parameter) -> int:
    text = _text(builder, name)
    # An empty text is a value too, unlike an empty name.
    string = int(builder.CreateString(value)) if isinstance(value, str) else 0
    fb.ParameterStart(builder)
    if text:
        fb.ParameterAddName(builder, text)
    if isinstance(value, bool):
        fb.ParameterAddKind(builder, fb.ParameterKind.BOOL)
        fb.ParameterAddBoolValue(builder, value)
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            fb.ParameterAddKind(builder, fb.ParameterKind.INT64)
            fb.ParameterAddInt64Value(builder, value)
        elif 0 <= value < 1 << 64:
            fb.ParameterAddKind(builder, fb.ParameterKind.UINT64)
            fb.ParameterAddUint64Value(builder, value)
        else:
            raise InvalidArgument(f"parameter '{name}': {value} does not fit in 64 bits")
    elif isinstance(value, float):
        fb.ParameterAddKind(builder, fb.ParameterKind.DOUBLE)
        fb.ParameterAddDoubleValue(builder, value)
    elif isinstance(value, str):
        fb.ParameterAddKind(builder, fb.ParameterKind.STRING)
        fb.ParameterAddStringValue(builder, string)
    else:
        raise InvalidArgument(f"parameter '{name}': {type(value).__name__} is not bool, int, float or str")
    return fb.ParameterEnd(builder)


def _finish(
    builder: flatbuffers.Builder,
    message_type: int,
    message: int,
    exchange: int,
    payloads: list[memoryview] | None = None,
) -> Buffers:
    payloads = payloads or []
    lengths = _numbers(builder, tuple(p.nbytes for p in payloads), builder.PrependUint64) if payloads else 0
    fb.HeaderStart(builder)
    fb.HeaderAddMessageType(builder, message_type)
    fb.HeaderAddMessage(builder, message)
    fb.HeaderAddExchange(builder, exchange)
    if lengths:
        fb.HeaderAddPayloads(builder, lengths)
    builder.Finish(fb.HeaderEnd(builder))
    return join_frame(bytes(builder.Output()), payloads)


def exchange_of(frame: Frame) -> int:
    """Return the number that ties an answer to its request."""
    return frame.header.uint64(2)


def decode_answer(frame: Frame, placement: Placement | None = None) -> Answer:
    """Read what a server sent. An error comes back as a value, for the caller to raise.

    Args:
        frame: What was received.
        placement: Where outputs of the request that this answers may be.

    Raises:
        KingpoleError: The frame is malformed or says something a server does not say.
    """
    kind, message = frame.header.uint8(0), frame.header.table(1)
    if kind and message is None:
        raise MalformedFrame(f"a frame's message of kind {kind} is absent")
    decode = _DECODERS.get(kind)
    if message is None:
        raise MalformedFrame("a frame without a message")
    if decode is None:
        raise Unimplemented(f"the server sent a message of kind {kind}, which this client does not know")
    if kind == fb.Message.Response:
        return _response(message, frame.payloads, placement)
    return decode(message, frame.payloads)


def _response(table: Table, payloads: list[memoryview], placement: Placement | None = None) -> InferResponse:
    outputs: dict[str, Any] = {}
    for position, tensor in enumerate(table.tables(3)):
        name = tensor.string(0) or str(position)
        if name in outputs:
            raise MalformedFrame(f"output '{name}' is there twice")
        index, offset, nbytes = tensor.uint32(4), tensor.uint64(5), tensor.uint64(6)
        if tensor.uint8(3) != fb.Location.INLINE:
            placed = None if placement is None else placement.find(index, offset, nbytes)
            if tensor.uint8(3) != fb.Location.SHARED or placed is None:
                raise Unimplemented(f"output '{name}' is neither in the frame nor where it was asked for")
            outputs[name] = _arrays.decode_tensor(name, tensor.uint8(1), tensor.int64s(2), placed)
            continue
        if index >= len(payloads):
            raise MalformedFrame(f"output '{name}': payload {index} of {len(payloads)} does not exist")
        payload = payloads[index]
        if offset + nbytes > len(payload):
            raise MalformedFrame(
                f"output '{name}': {nbytes} bytes at {offset} pass the end of payload {index}, "
                f"which has {len(payload)}"
            )
        data = payload[offset : offset + nbytes]
        outputs[name] = _arrays.decode_tensor(name, tensor.uint8(1), tensor.int64s(2), data)
    timing = Timing(table.uint64(5), table.uint64(6), table.uint32(7), table.string(8) or "")
    return InferResponse(
        table.string(0) or "",
        table.string(1) or "",
        table.string(2),
        outputs,
        _parameters(table.tables(4)),
        timing,
        STAGES.get(table.uint8(9), "only"),
    )


def _parameters(tables: list[Table]) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for table in tables:
        name, kind = table.string(0) or "", table.uint8(1)
        value: Parameter
        if kind == fb.ParameterKind.BOOL:
            value = table.uint8(2) != 0
        elif kind == fb.ParameterKind.INT64:
            value = table.int64(3)
        elif kind == fb.ParameterKind.UINT64:
            value = table.uint64(4)
        elif kind == fb.ParameterKind.DOUBLE:
            value = table.float64(5)
        elif kind == fb.ParameterKind.STRING:
            value = table.string(6) or ""
        else:
            raise MalformedFrame(f"parameter '{name}' has no value of a known kind")
        if name in parameters:
            raise MalformedFrame(f"parameter '{name}' is given twice")
        parameters[name] = value
    return parameters


def _error(table: Table, _payloads: list[memoryview]) -> KingpoleError:
    number, message = table.uint8(0), table.string(1) or ""
    return error_of_number(number, message, id=table.string(3), retry_after_ms=table.uint32(2) or None)


def _credit(table: Table, _payloads: list[memoryview]) -> Credit:
    return Credit(table.uint32(0))


def _ready(table: Table, _payloads: list[memoryview]) -> bool:
    return table.uint8(0) != 0


def _server_info(table: Table, _payloads: list[memoryview]) -> ServerMetadata:
    return ServerMetadata(
        table.string(0) or "", table.string(1) or "", tuple(table.strings(2)), table.uint64(3)
    )


def _specs(tables: list[Table]) -> tuple[TensorSpec, ...]:
    specs = []
    for table in tables:
        number = table.uint8(1)
        if not 0 < number < len(_arrays.DATATYPES):
            raise MalformedFrame(f"tensor '{table.string(0)}': unknown datatype {number}")
        name, optional = table.string(0) or "", table.uint8(3) != 0
        specs.append(TensorSpec(name, _arrays.DATATYPES[number], table.int64s(2), optional))
    return tuple(specs)


def _metadata(table: Table, _payloads: list[memoryview]) -> ModelMetadata:
    return ModelMetadata(
        table.string(0) or "", tuple(table.strings(1)), table.string(2) or "", _specs(table.tables(3)),
        _specs(table.tables(4)), table.uint32(5), table.string(6) or "",
    )  # fmt: skip


def _done(_table: Table, _payloads: list[memoryview]) -> Done:
    return Done()


_DECODERS: dict[int, Callable[[Table, list[memoryview]], Answer]] = {
    fb.Message.Response: _response,
    fb.Message.Error: _error,
    fb.Message.Credit: _credit,
    fb.Message.Ready: _ready,
    fb.Message.ServerInfo: _server_info,
    fb.Message.Metadata: _metadata,
    fb.Message.Done: _done,
}
