"""Arenas: sealed anonymous memory shared with the server, in which tensors travel.

The server's arenas have even numbers, the worker's odd ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

ALIGNMENT = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_KEPT = 4


def aligned(offset: int) -> int:
    """Round up to where the next tensor may start."""
    return (offset + ALIGNMENT - 1) & ~(ALIGNMENT - 1)


class Arenas:
    """The arenas that a worker has mapped: the server's, and its own for large outputs.

    An arena of its own is reused only after the server has released it.
    """

    def __init__(self) -> None:
        self._mapped: dict[int, mmap.mmap] = {}
        self._free: list[int] = []
        self._next_number = 1

    def receive(self, number: int, descriptor: int) -> None:
        """Map an arena that the server has made, and close its descriptor.

        Raises:
            ValueError: When it could shrink under the mapping, which would kill this process.
        """
        try:
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError(f"arena {number} is not sealed against shrinking")
            self._unmap(number)
            self._mapped[number] = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def buffer(self, number: int) -> mmap.mmap:
        """The memory of a mapped arena.

        Raises:
            KeyError: When it is not mapped.
        """
        return self._mapped[number]

    def take(self, nbytes: int) -> tuple[int, int | None]:
        """Take an arena of this worker's for outputs.

        Returns:
            Its number, and its descriptor when it is new: the caller sends it and closes it.
        """
        for index, number in enumerate(self._free):
            if len(self._mapped[number]) >= nbytes:
                del self._free[index]
                return number, None
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("kingpole-outputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            number = self._next_number
            self._mapped[number] = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        self._next_number += 2
        return number, descriptor

    def release(self, number: int) -> None:
        """The server no longer needs an arena: forget its own, keep ours for reuse."""
        if number % 2 == 0:
            self._unmap(number)
        elif number in self._mapped and number not in self._free:
            self._free.append(number)
            while len(self._free) > _KEPT:
                # Keep the newest: sizes grow towards what the model needs.
                self._unmap(self._free.pop(0))

    def _unmap(self, number: int) -> None:
        memory = self._mapped.pop(number, None)
        if memory is not None:
            # A model may have kept a view of its inputs; the memory then goes with that view.
            with contextlib.suppress(BufferError):
                memory.close()
