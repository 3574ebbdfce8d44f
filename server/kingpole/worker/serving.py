"""The worker's loop: one packet in, one batch run, one packet out."""

from __future__ import annotations

import array
import collections
import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator
from pathlib import Path

import msgspec

from kingpole._arrays import Array, datatype_of, to_datatype, view, write_bytes
from kingpole.contract import Backend, Model, ModelError, find_backend
from kingpole.signature import Signature, TensorSpec
from kingpole.worker import packets
from kingpole.worker.arenas import Arenas, aligned

PARTS_ON_THE_WAY = 4
"""Responses of a decoupled model that the server may not have taken yet before the model waits."""

_decoder: msgspec.msgpack.Decoder[packets.FromServer] = msgspec.msgpack.Decoder(packets.FromServer)
_encoder = msgspec.msgpack.Encoder()
_ANCILLARY_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)


_load_decoder: msgspec.msgpack.Decoder[packets.Load] = msgspec.msgpack.Decoder(packets.Load)


class _ServerGoneError(Exception):
    """The server is gone. Not a ConnectionError, as a model may raise one of its own."""


class _Instance:
    """A loaded model beside what its outputs are checked against."""

    __slots__ = ("batches", "decoupled", "model", "name", "outputs")

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self.model = model
        self.outputs: tuple[TensorSpec, ...] = model.signature.outputs
        self.decoupled = model.signature.decoupled
        self.batches = bool(model.signature.max_batch_size) and not self.decoupled

    def execute(self, packet: packets.Execute, inputs: dict[str, Array]) -> dict[str, Array]:
        parameters = packet.parameters
        if not parameters:
            parameters = [{}] * (packet.rows if self.batches else 1)
        elif self.batches and len(parameters) != packet.rows:
            # One for each row: those of a request share its mapping.
            pairs = zip(parameters, packet.request_rows, strict=True)
            parameters = [each for each, rows in pairs for _ in range(rows)]
        return self.model.execute_with_parameters(inputs, parameters)


class Worker:
    """Runs batches for the server, one at a time.

    Promises: every execute packet is answered by exactly one `done` or `error`; an
    exception of a model ends no more than its batch; end of the socket ends the process; with a
    socket of its own for them, models are loaded while batches of others run.
    """

    def __init__(self, connection: socket.socket, loads: socket.socket | None = None) -> None:
        self._connection = connection
        # Packets that came while a batch's parts were being sent.
        self._deferred: collections.deque[packets.FromServer] = collections.deque()
        if loads is not None:
            # A daemon: a model that never finishes loading does not keep the process from ending.
            threading.Thread(target=self._load_all, args=[loads], name="load", daemon=True).start()
        self._arenas = Arenas()
        self._instances: dict[int, _Instance] = {}
        self._backends: dict[str, Backend] = {}

    def run(self) -> int:
        """Serve until told to stop (0) or until the server is gone (1)."""
        self._send(packets.Ready(os.getpid(), platform.python_version()))
        try:
            while True:
                packet = self._deferred.popleft() if self._deferred else self._receive()
                if type(packet) is packets.Execute:
                    self._execute(packet)
                elif type(packet) is packets.Load:
                    self._load(packet)
                elif type(packet) is packets.Unload:
                    self._unload(packet)
                elif type(packet) is packets.Release:
                    self._arenas.release(packet.arena)
                elif type(packet) is packets.Stop:
                    self._close()
                    return 0
        except _ServerGoneError:
            return 1

    def _receive(self, flags: int = 0) -> packets.FromServer:
        """Take the next packet.

        Raises:
            _ServerGoneError: When the server is gone.
            BlockingIOError: When there is none and `flags` say not to wait.
        """
        try:
            data, ancillary, _, _ = self._connection.recvmsg(packets.PACKET_BYTES, _ANCILLARY_BYTES, flags)
        except ConnectionError as error:
            raise _ServerGoneError from error
        if not data:
            raise _ServerGoneError
        packet = _decoder.decode(data)
        if ancillary and type(packet) is packets.Execute:
            self._arenas.receive(packet.arena, _descriptor(ancillary))
        return packet

    def _execute(self, packet: packets.Execute) -> None:
        started_ns = time.perf_counter_ns()
        name = str(packet.handle)
        try:
            instance = self._instances[packet.handle]
            name = instance.name
            memory = self._arenas.buffer(packet.arena)
            inputs = {
                tensor: view(memory, datatype, shape, offset, nbytes)
                for tensor, datatype, shape, offset, nbytes in packet.inputs
            }
            run = self._execute_in_parts if instance.decoupled else self._execute_whole
            number, rows, descriptor, ended_ns = run(packet, instance, inputs)
            done = packets.Done(packet.sequence, number, rows, (ended_ns - started_ns) // 1000)
        except _ServerGoneError:
            raise
        except BaseException as error:  # noqa: BLE001 - a model may raise anything; its batch gets it
            code, message = _report(name, error)
            self._send(packets.Error(packet.sequence, code, message))
            return
        self._send(done, descriptor)

    def _execute_whole(
        self, packet: packets.Execute, instance: _Instance, inputs: dict[str, Array]
    ) -> tuple[int, list[packets.TensorRow], int | None, int]:
        """Run a batch; returns where its outputs lie and when the model had ended."""
        outputs = instance.execute(packet, inputs)
        ended_ns = time.perf_counter_ns()
        return *self._lay_out(instance, outputs, packet.rows if instance.batches else None, packet), ended_ns

    def _execute_in_parts(
        self, packet: packets.Execute, instance: _Instance, inputs: dict[str, Array]
    ) -> tuple[int, list[packets.TensorRow], int | None, int]:
        """Send each response as the model gives it, until the last or until nobody wants more."""
        parameters = packet.parameters[0] if packet.parameters else {}
        parts = instance.model.execute_in_parts(inputs, parameters)
        lent: set[int] = set()
        try:
            for outputs in parts:
                number, rows, descriptor = self._lay_out(instance, outputs, None)
                try:
                    self._send(packets.Part(packet.sequence, number, rows), descriptor)
                except ModelError:
                    self._arenas.release(number)
                    raise
                lent.add(number)
                if self._is_cancelled(packet.sequence, lent):
                    break
        finally:
            # Closed now, on this thread, rather than whenever it is collected.
            if isinstance(parts, Generator):
                parts.close()
        return packet.arena, [], None, time.perf_counter_ns()

    def _is_cancelled(self, sequence: int, lent: set[int]) -> bool:
        """Look at what has come meanwhile; wait while the server has not taken enough of the batch's parts.

        Args:
            sequence: The batch.
            lent: The arenas of its parts that the server has; those that come back are taken out.
        """
        cancelled = False
        while True:
            wait = not cancelled and len(lent) >= PARTS_ON_THE_WAY
            try:
                packet = self._receive(0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return cancelled
            if type(packet) is packets.Release:
                self._arenas.release(packet.arena)
                lent.discard(packet.arena)
            elif type(packet) is packets.Cancel:
                cancelled = cancelled or packet.sequence == sequence
            else:
                self._deferred.append(packet)

    def _lay_out(
        self,
        instance: _Instance,
        outputs: dict[str, Array],
        batch_rows: int | None,
        packet: packets.Execute | None = None,
    ) -> tuple[int, list[packets.TensorRow], int | None]:
        """Check outputs and copy them to where the server can read them.

        Args:
            instance: Whose they are.
            outputs: What the model returned.
            batch_rows: How many rows each must have, None for any.
            packet: The batch, if its own arena may be used; else they go to one of this worker's.

        Returns:
            The arena, what lies in it, and its descriptor when it is new.
        """
        if not isinstance(outputs, dict):
            raise ModelError(
                "INTERNAL", f"the model returned {type(outputs).__name__}, not a dict of outputs"
            )
        pieces: list[tuple[str, str, tuple[int, ...], int, int, Array | bytes]] = []
        start, room = packet.free if packet else (0, -1)
        offset = start
        for spec in instance.outputs:
            if spec.name not in outputs:
                raise ModelError("INTERNAL", f"the model did not return output '{spec.name}'")
            tensor = checked(spec, outputs[spec.name], batch_rows)
            content = write_bytes(tensor) if spec.datatype == "BYTES" else tensor
            nbytes = len(content) if isinstance(content, bytes) else content.nbytes
            offset = aligned(offset)
            pieces.append((spec.name, spec.datatype, tensor.shape, offset, nbytes, content))
            offset += nbytes
        number, descriptor, shift = packet.arena if packet else 0, None, 0
        if packet is None or offset > start + room:
            # The first tensor of an arena of our own starts at 0.
            shift = aligned(start)
            number, descriptor = self._arenas.take(max(offset - shift, 1))
        memory = self._arenas.buffer(number)
        rows: list[packets.TensorRow] = []
        for name, datatype, shape, at, nbytes, content in pieces:
            at -= shift
            if isinstance(content, bytes):
                memory[at : at + nbytes] = content
            elif nbytes:
                view(memory, datatype_of(content) or datatype, shape, at, nbytes)[...] = content
            rows.append((name, datatype, shape, at, nbytes))
        return number, rows, descriptor

    def _load_all(self, loads: socket.socket) -> None:
        """Load what comes on a socket of its own, one at a time, until the server is gone."""
        while data := loads.recv(packets.PACKET_BYTES):
            try:
                self._load(_load_decoder.decode(data))
            except _ServerGoneError:
                # The main thread sees it as well.
                return

    def _load(self, packet: packets.Load) -> None:
        name = str(packet.configuration.get("name") or packet.handle)
        try:
            backend = self._backends.get(packet.backend)
            if backend is None:
                backend = self._backends[packet.backend] = find_backend(packet.backend)
            model = backend.load(Path(packet.directory), packet.configuration, packet.device)
            model.warmup()
            self._instances[packet.handle] = _Instance(name, model)
            loaded = _loaded(packet.handle, model.signature)
        except BaseException as error:  # noqa: BLE001 - user code runs at load; the server is told why
            code, message = _report(name, error, otherwise="FAILED_PRECONDITION")
            self._send(packets.Failed(packet.handle, code, message))
            return
        self._send(loaded)

    def _unload(self, packet: packets.Unload) -> None:
        instance = self._instances.pop(packet.handle, None)
        if instance is not None:
            _close(instance)
        self._send(packets.Unloaded(packet.handle))

    def _close(self) -> None:
        # The loading thread may add one meanwhile.
        for instance in list(self._instances.values()):
            _close(instance)

    def _send(self, packet: packets.FromWorker, descriptor: int | None = None) -> None:
        data = _encoder.encode(packet)
        if len(data) > packets.PACKET_BYTES:
            if descriptor is not None:
                os.close(descriptor)
            text = f"the answer needs a packet of {len(data)} bytes, more than {packets.PACKET_BYTES}"
            if isinstance(packet, packets.Done):
                data = _encoder.encode(packets.Error(packet.sequence, "INTERNAL", text))
            elif isinstance(packet, packets.Part):
                raise ModelError("INTERNAL", text)
            elif isinstance(packet, packets.Loaded):
                data = _encoder.encode(packets.Failed(packet.handle, "FAILED_PRECONDITION", text))
            descriptor = None
        try:
            if descriptor is None:
                self._connection.send(data)
            else:
                socket.send_fds(self._connection, [data], [descriptor])
        except ConnectionError as error:
            raise _ServerGoneError from error
        finally:
            if descriptor is not None:
                os.close(descriptor)


def checked(spec: TensorSpec, tensor: object, rows: int | None) -> Array:
    """Check an output against its declaration and the batch it belongs to.

    Args:
        spec: What the model declared.
        tensor: What it returned.
        rows: Rows of the batch, None for a model that does not batch.

    Raises:
        ModelError: INTERNAL, naming the output, what was expected and what came.
    """
    if not hasattr(tensor, "__array__"):
        raise ModelError("INTERNAL", f"output '{spec.name}' is a {type(tensor).__name__}, not an array")
    import numpy as np

    given = np.asarray(tensor)
    converted = to_datatype(given, spec.datatype)
    if converted is None:
        got = datatype_of(given) or str(given.dtype)
        raise ModelError("INTERNAL", f"output '{spec.name}': expected datatype {spec.datatype}, got {got}")
    # ONNX Runtime reports an output of unknown rank like a scalar: nothing to check then.
    if spec.shape and (wrong := spec.mismatch(given.shape)):
        raise ModelError("INTERNAL", f"output '{spec.name}': {wrong}")
    if rows is not None and given.shape[:1] != (rows,):
        got = str(given.shape[0]) if given.shape else "none"
        raise ModelError("INTERNAL", f"output '{spec.name}': expected {rows} rows, got {got}")
    return converted


def _loaded(handle: int, signature: Signature) -> packets.Loaded:
    return packets.Loaded(
        handle,
        signature.platform,
        [spec.row() for spec in signature.inputs],
        [spec.row() for spec in signature.outputs],
        signature.max_batch_size,
        signature.description,
        list(signature.notes),
        signature.decoupled,
    )


def _close(instance: _Instance) -> None:
    try:
        instance.model.close()
    except Exception as error:  # noqa: BLE001 - the model is gone either way; its author should know
        _report(instance.name, error)


def _report(name: str, error: BaseException, otherwise: str = "INTERNAL") -> tuple[str, str]:
    """Give the code and text of an exception; unexpected ones are printed with their traceback."""
    if isinstance(error, ModelError):
        return error.code, error.message[: packets.MESSAGE_CHARACTERS]
    for line in "".join(traceback.format_exception(error)).splitlines():
        print(f"[{name}] {line}", file=sys.stderr)
    sys.stderr.flush()
    return otherwise, f"{type(error).__name__}: {error}"[: packets.MESSAGE_CHARACTERS]


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The one descriptor of a packet."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", data)[0]
    raise ValueError("ancillary data without a file descriptor")
