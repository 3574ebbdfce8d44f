"""Memory shared with a server on this machine: tensors lie in it and do not travel through the socket.

Knows no socket. One `SharedMemory` belongs to one connection and ends with it: a server may go on writing to
the memory of a connection that has broken, so what was placed there is not used for another.

Source: protocol/spec/shared-memory.md
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kingpole_client._frame import ALIGNMENT
from kingpole_client._values import InferResponse
from kingpole_client.errors import InvalidArgument, ResourceExhausted, Unimplemented

if TYPE_CHECKING:
    from kingpole_client._arrays import Array

ARENA = 0
"""The number of the one arena of a connection."""
HAND_OVER_US = 10_000_000
NOT_SHARED = "this client shares no memory: connect('unix:...', shared_memory='64MiB')"
SMALLEST_BYTES = 4096
"""Shorter tensors travel in the frame: a copy costs less than the bookkeeping."""
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MOST_LEARNED = 1024


def parse_bytes(text: int | str) -> int:
    """Read a number of bytes, as such or as text like `64MiB`.

    Raises:
        InvalidArgument: It is neither.
    """
    if isinstance(text, int):
        nbytes = text
    else:
        number, unit = text[:-3].strip(), _UNITS.get(text[-3:])
        digits, factor = (text, 1) if unit is None else (number, unit)
        if not digits.isdigit():
            raise InvalidArgument(f"shared_memory is '{text}', expected bytes or a text such as '64MiB'")
        nbytes = int(digits) * factor
    if nbytes <= 0:
        raise InvalidArgument(f"shared_memory is {nbytes} bytes, it must be above 0")
    return nbytes


class Block:
    """A range of the memory. Arrays made of it keep it; when the last is gone, the range is free again."""

    __slots__ = ("_memory", "nbytes", "offset")

    def __init__(self, memory: SharedMemory, offset: int, nbytes: int) -> None:
        self._memory, self.offset, self.nbytes = memory, offset, nbytes

    def __del__(self) -> None:
        self._memory.give_back(self.offset, self.nbytes)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """How numpy finds the bytes, and keeps this object while it uses them."""
        address = self._memory.address + self.offset
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}

    def bytes(self) -> Array:
        """Return the bytes as an array."""
        return np.asarray(self)


@dataclass
class Placement:
    """Where the tensors of one request are; keeps their ranges until it is dropped."""

    memory: SharedMemory
    inputs: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Offset and bytes of each input that is in the memory, by position."""
    outputs: list[tuple[str, Block | None]] = field(default_factory=list)
    """The outputs to ask for, in order, and where each may be put; empty: ask for what the request says."""
    kept: list[object] = field(default_factory=list)
    key: tuple[Any, ...] = ()

    def learn(self, answer: object) -> None:
        """Remember how large the outputs were, for the next request like this one."""
        self.memory.learn(self.key, answer)

    def find(self, arena: int, offset: int, nbytes: int) -> memoryview | None:
        """Return the bytes of an output that the server says is there; None if it was not asked for there."""
        for _, block in self.outputs:
            if block is not None and (arena, offset) == (ARENA, block.offset) and nbytes <= block.nbytes:
                return memoryview(block.bytes().data)[:nbytes]
        return None


class SharedMemory:
    """A sealed memfd, mapped here and by the server, and which of it is free. Safe between threads."""

    def __init__(self, nbytes: int) -> None:
        size = nbytes + -nbytes % mmap.PAGESIZE
        if not hasattr(os, "memfd_create"):
            raise Unimplemented("shared memory needs Linux")
        self.descriptor = os.memfd_create("kingpole-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            # The server maps it only if nobody can change its size any more.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8)
        except (OSError, ValueError) as error:
            self.close_descriptor()
            raise ResourceExhausted(f"no shared memory of {size} bytes: {error}") from None
        self.size = size
        self.address: int = self._bytes.ctypes.data
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, size)]
        # Filled where Python drops a block, which may be anywhere: there no lock may be waited for.
        self._returned: deque[tuple[int, int]] = deque()
        self._learned: dict[tuple[Any, ...], dict[str, int]] = {}

    def close_descriptor(self) -> None:
        """Forget the descriptor, which is only needed to hand the memory over."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def take(self, nbytes: int) -> Block | None:
        """Reserve a range; None if there is no room."""
        wanted = max(nbytes + -nbytes % ALIGNMENT, ALIGNMENT)
        with self._lock:
            self._merge()
            for index, (start, end) in enumerate(self._free):
                if end - start >= wanted:
                    self._free[index : index + 1] = [(start + wanted, end)] if end - start > wanted else []
                    return Block(self, start, nbytes)
        return None

    def give_back(self, offset: int, nbytes: int) -> None:
        """Note that a range is free again. Never waits."""
        self._returned.append((offset, offset + max(nbytes + -nbytes % ALIGNMENT, ALIGNMENT)))

    def _merge(self) -> None:
        if not self._returned:
            return
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free.sort()
        merged: list[tuple[int, int]] = []
        for start, end in self._free:
            if merged and merged[-1][1] == start:
                merged[-1] = merged[-1][0], end
            else:
                merged.append((start, end))
        self._free = merged

    def empty(self, shape: tuple[int, ...] | int, dtype: Any) -> Array:
        """Return an array in the memory, its elements not set.

        Raises:
            ResourceExhausted: There is no room.
            InvalidArgument: Arrays of the dtype cannot be shared.
        """
        kind = np.dtype(dtype)
        if kind.hasobject or not kind.itemsize:
            raise InvalidArgument(f"arrays of {kind} cannot be in shared memory")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        elements = 1
        for size in sizes:
            elements *= size
        block = self.take(elements * kind.itemsize)
        if block is None:
            raise ResourceExhausted(
                f"no room for {elements * kind.itemsize} bytes in {self.size} bytes of shared memory"
            )
        array: Array = block.bytes()[: elements * kind.itemsize].view(kind).reshape(sizes)
        return array

    def place(self, data: list[memoryview], model: str, version: str | None, outputs: list[str]) -> Placement:
        """Put inputs where they are not yet, and reserve room for the outputs if their sizes are known."""
        placement = Placement(self, key=(model, version, *outputs))
        for index, each in enumerate(data):
            offset = self._offset(each)
            if offset is None and each.nbytes >= SMALLEST_BYTES:
                block = self.take(each.nbytes)
                if block is not None:
                    block.bytes()[:] = np.frombuffer(each, np.uint8)
                    placement.kept.append(block)
                    offset = block.offset
            if offset is not None:
                placement.inputs[index] = offset, each.nbytes
                placement.kept.append(each)
        for name, nbytes in self._learned.get(placement.key, {}).items():
            placement.outputs.append((name, self.take(nbytes) if nbytes >= SMALLEST_BYTES else None))
        return placement

    def learn(self, key: tuple[Any, ...], answer: object) -> None:
        """Remember how large the outputs of a request were, for the next one like it."""
        if not isinstance(answer, InferResponse):
            # Whatever is wrong now: the next one asks for what the caller says, and nothing else.
            self._learned.pop(key, None)
        elif answer.stage == "only":
            sizes = {name: 0 if a.dtype.hasobject else a.nbytes for name, a in answer.outputs.items()}
            if len(self._learned) >= _MOST_LEARNED:
                self._learned.clear()
            if max(sizes.values(), default=0) >= SMALLEST_BYTES:
                self._learned[key] = sizes

    def _offset(self, data: memoryview) -> int | None:
        if not data.nbytes:
            return None
        offset: int = np.frombuffer(data, np.uint8).ctypes.data - self.address
        return offset if 0 <= offset <= self.size - data.nbytes else None
