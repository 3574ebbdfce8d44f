"""The worker's loop: one packet in, one batch run, one packet out."""

from __future__ import annotations

import array
import os
import platform
import queue
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import msgspec

from kingpole._arrays import Array, datatype_of, to_datatype, view, write_bytes
from kingpole.contract import Backend, Model, ModelError, find_backend
from kingpole.signature import Signature, TensorSpec
from kingpole.worker import packets
from kingpole.worker.arenas import Arenas, aligned

_decoder = msgspec.msgpack.Decoder(packets.FromServer)
_encoder = msgspec.msgpack.Encoder()
_ANCILLARY_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)


class _Instance:
    """A loaded model beside what its outputs are checked against."""

    __slots__ = ("batches", "model", "name", "outputs")

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self.model = model
        self.outputs: tuple[TensorSpec, ...] = model.signature.outputs
        self.batches = bool(model.signature.max_batch_size)


class Worker:
    """Runs batches for the server, one at a time.

    Promises: every execute packet is answered by exactly one `done` or `error`; an
    exception of a model ends no more than its batch; end of the socket ends the process; with
    `loads_beside` a model that is being loaded keeps no other from running.
    """

    def __init__(self, connection: socket.socket, *, loads_beside: bool = False) -> None:
        self._connection = connection
        self._to_load: queue.SimpleQueue[packets.Load] | None = None
        if loads_beside:
            self._to_load = queue.SimpleQueue()
            # A daemon: a model that never finishes loading does not keep the process from ending.
            threading.Thread(target=self._load_all, name="load", daemon=True).start()
        self._arenas = Arenas()
        self._instances: dict[int, _Instance] = {}
        self._backends: dict[str, Backend] = {}

    def run(self) -> int:
        """Serve until told to stop (0) or until the server is gone (1)."""
        self._send(packets.Ready(os.getpid(), platform.python_version()))
        receive = self._connection.recvmsg
        try:
            while True:
                data, ancillary, _, _ = receive(packets.PACKET_BYTES, _ANCILLARY_BYTES)
                if not data:
                    return 1
                packet = _decoder.decode(data)
                if type(packet) is packets.Execute:
                    if ancillary:
                        self._arenas.receive(packet.arena, _descriptor(ancillary))
                    self._execute(packet)
                elif type(packet) is packets.Load:
                    if self._to_load is None:
                        self._load(packet)
                    else:
                        self._to_load.put(packet)
                elif type(packet) is packets.Unload:
                    self._unload(packet)
                elif type(packet) is packets.Release:
                    self._arenas.release(packet.arena)
                else:
                    self._close()
                    return 0
        except (BrokenPipeError, ConnectionResetError):
            return 1

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
            outputs = instance.model.execute(inputs)
            execute_us = (time.perf_counter_ns() - started_ns) // 1000
            done, descriptor = self._lay_out(packet, instance, outputs, execute_us)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a model may raise anything; its batch gets it
            code, message = _report(name, error)
            self._send(packets.Error(packet.sequence, code, message))
            return
        self._send(done, descriptor)

    def _lay_out(
        self, packet: packets.Execute, instance: _Instance, outputs: dict[str, Array], execute_us: int
    ) -> tuple[packets.Done, int | None]:
        """Check a batch's outputs and copy them to where the server can read them."""
        if not isinstance(outputs, dict):
            raise ModelError(
                "INTERNAL", f"the model returned {type(outputs).__name__}, not a dict of outputs"
            )
        pieces: list[tuple[str, str, tuple[int, ...], int, int, Array | bytes]] = []
        start, room = packet.free
        offset = start
        for spec in instance.outputs:
            if spec.name not in outputs:
                raise ModelError("INTERNAL", f"the model did not return output '{spec.name}'")
            tensor = checked(spec, outputs[spec.name], packet.rows if instance.batches else None)
            content = write_bytes(tensor) if spec.datatype == "BYTES" else tensor
            nbytes = len(content) if isinstance(content, bytes) else content.nbytes
            offset = aligned(offset)
            pieces.append((spec.name, spec.datatype, tensor.shape, offset, nbytes, content))
            offset += nbytes
        number, descriptor, shift = packet.arena, None, 0
        if offset > start + room:
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
        return packets.Done(packet.sequence, number, rows, execute_us), descriptor

    def _load_all(self) -> None:
        """Load what comes, one at a time, for the life of the process."""
        assert self._to_load is not None
        while True:
            packet = self._to_load.get()
            try:
                self._load(packet)
            except OSError:
                # The server is gone, which the main thread sees as well.
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
        except (Exception, SystemExit) as error:  # noqa: BLE001 - user code runs at load; the server is told why
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
        for instance in self._instances.values():
            _close(instance)
        self._instances.clear()

    def _send(self, packet: packets.FromWorker, descriptor: int | None = None) -> None:
        data = _encoder.encode(packet)
        if len(data) > packets.PACKET_BYTES:
            if descriptor is not None:
                os.close(descriptor)
            text = f"the answer needs a packet of {len(data)} bytes, more than {packets.PACKET_BYTES}"
            if isinstance(packet, packets.Done):
                data = _encoder.encode(packets.Error(packet.sequence, "INTERNAL", text))
            elif isinstance(packet, packets.Loaded):
                data = _encoder.encode(packets.Failed(packet.handle, "FAILED_PRECONDITION", text))
            descriptor = None
        if descriptor is None:
            self._connection.send(data)
            return
        try:
            socket.send_fds(self._connection, [data], [descriptor])
        finally:
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
    )


def _close(instance: _Instance) -> None:
    try:
        instance.model.close()
    except Exception as error:  # noqa: BLE001 - the model is gone either way; its author should know
        _report(instance.name, error)


def _report(name: str, error: Exception | SystemExit, otherwise: str = "INTERNAL") -> tuple[str, str]:
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
