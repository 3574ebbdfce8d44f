"""A worker of the tests: speaks the worker protocol with the standard library alone.

What it does with a batch is the loaded model's ``configuration["mode"]``.
"""

import array
import fcntl
import mmap
import os
import socket
import struct
import sys
from typing import Any

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def pack(value: Any) -> bytes:
    """Write a value as msgpack, in the longest forms."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value)
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
    return b"\xdf" + struct.pack(">I", len(value)) + pairs


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Read a msgpack value; gives it and where it ended."""
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 0x100, at
    if first < 0x90:
        return read_map(data, at, first & 0xF)
    if first < 0xA0:
        return read_list(data, at, first & 0xF)
    if first < 0xC0:
        return read_text(data, at, first & 0x1F)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    plain = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
    plain |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    if first in plain:
        return struct.unpack_from(plain[first], data, at)[0], at + struct.calcsize(plain[first])
    sized = {0xD9: (">B", read_text), 0xDA: (">H", read_text), 0xDB: (">I", read_text)}
    sized |= {
        0xDC: (">H", read_list),
        0xDD: (">I", read_list),
        0xDE: (">H", read_map),
        0xDF: (">I", read_map),
    }
    layout, read = sized[first]
    (size,) = struct.unpack_from(layout, data, at)
    return read(data, at + struct.calcsize(layout), size)


def read_text(data: bytes, at: int, size: int) -> tuple[Any, int]:
    return data[at : at + size].decode(), at + size


def read_list(data: bytes, at: int, size: int) -> tuple[Any, int]:
    items = []
    for _ in range(size):
        item, at = unpack(data, at)
        items.append(item)
    return items, at


def read_map(data: bytes, at: int, size: int) -> tuple[Any, int]:
    items, at = read_list(data, at, 2 * size)
    return dict(zip(items[::2], items[1::2], strict=True)), at


class Worker:
    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.modes: dict[int, str] = {}
        self.arenas: dict[int, mmap.mmap] = {}
        self.own: mmap.mmap | None = None
        self.lent = False

    def send(self, fields: dict[str, Any], fd: int | None = None) -> None:
        control = []
        if fd is not None:
            control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd])))
        self.socket.sendmsg([pack(fields)], control)
        if fd is not None:
            os.close(fd)

    def run(self) -> None:
        self.send({"type": "ready", "pid": os.getpid(), "python": sys.version.split()[0]})
        while True:
            packet, fds, _, _ = socket.recv_fds(self.socket, 65536, 1)
            if not packet:
                return
            said, end = unpack(packet)
            assert end == len(packet)
            if said["type"] == "stop":
                return
            getattr(self, said["type"])(said, fds)

    def load(self, said: dict[str, Any], fds: list[int]) -> None:
        handle, mode = said["handle"], said["configuration"]["mode"]
        if mode == "refuse":
            self.send({"type": "failed", "handle": handle, "code": "FAILED_PRECONDITION", "message": "no"})
            return
        self.modes[handle] = mode
        signature = ["x", "FP32", [-1, 4]]
        reply = {"type": "loaded", "handle": handle, "platform": "echo", "inputs": [signature]}
        reply |= {"outputs": [], "max_batch_size": None, "description": "", "notes": [said["device"]]}
        self.send(reply)

    def unload(self, said: dict[str, Any], fds: list[int]) -> None:
        del self.modes[said["handle"]]
        self.send({"type": "unloaded", "handle": said["handle"]})

    def release(self, said: dict[str, Any], fds: list[int]) -> None:
        if said["arena"] % 2:
            assert self.lent
            self.lent = False
        else:
            self.arenas.pop(said["arena"]).close()

    def execute(self, said: dict[str, Any], fds: list[int]) -> None:
        number = said["arena"]
        if fds:
            assert number not in self.arenas, "a descriptor comes once"
            self.arenas[number] = mmap.mmap(fds[0], os.fstat(fds[0]).st_size)
            os.close(fds[0])
        arena = self.arenas[number]
        assert sum(said["request_rows"]) == said["rows"]
        getattr(self, "mode_" + self.modes[said["handle"]])(said, arena)

    def done(
        self, said: dict[str, Any], outputs: list[Any], arena: int | None = None, fd: int | None = None
    ) -> None:
        number = said["arena"] if arena is None else arena
        reply = {"type": "done", "sequence": said["sequence"], "arena": number, "outputs": outputs}
        self.send(reply | {"execute_us": 7}, fd)

    def mode_echo(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        offset, room = said["free"]
        outputs = []
        for name, datatype, shape, start, size in said["inputs"]:
            assert start % 64 == 0
            assert offset % 64 == 0
            assert size <= room, (offset, size, room)
            arena[offset : offset + size] = arena[start : start + size]
            outputs.append([name, datatype, shape, offset, size])
            offset, room = offset + -(-size // 64) * 64, room - -(-size // 64) * 64
        self.done(said, outputs)

    def mode_parameters(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        message = repr(sorted(said["parameters"][0].items()))
        self.send(
            {"type": "error", "sequence": said["sequence"], "code": "INVALID_ARGUMENT", "message": message}
        )

    def mode_own(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        """A megabyte of the input's first byte, in an arena of our own, made once."""
        assert not self.lent
        fd, size = None, 1 << 20
        if self.own is None:
            fd = os.memfd_create("own", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            self.own = mmap.mmap(fd, size)
        start = said["inputs"][0][3]
        self.own[:] = arena[start : start + 1] * size
        self.lent = True
        self.done(said, [["y", "UINT8", [size], 0, size]], 1, fd)

    def mode_hasty(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        """Write to our own arena again, released or not."""
        self.lent = False
        self.mode_own(said, arena)

    def mode_unsealed(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        fd = os.memfd_create("own", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 4096)
        self.done(said, [["y", "UINT8", [4096], 0, 4096]], 3, fd)

    def mode_file(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [1], 0, 1]], 5, os.open("/dev/null", os.O_RDWR))

    def mode_unknown(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [1], 0, 1]], 77)

    def mode_foreign(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [1], 0, 1]], said["arena"] + 2)

    def mode_beyond(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [128], len(arena) - 64, 128]])

    def mode_overflow(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [1 << 62], (1 << 63) - 64, 1 << 62]])

    def mode_size(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "FP32", [3], 0, 8]])

    def mode_negative(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [-8, -1], 0, 8]])

    def mode_datatype(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "FP8", [8], 0, 8]])

    def mode_misaligned(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said, [["y", "UINT8", [8], 8, 8]])

    def mode_strings(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        offset = said["free"][0]
        arena[offset : offset + 8] = struct.pack("<II", 4000, 0)
        self.done(said, [["y", "BYTES", [1], offset, 8]])

    def mode_garbage(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.socket.send(b"\xff\xfe\xfd not msgpack")

    def mode_unasked(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        self.done(said | {"sequence": 1 << 40}, [])

    def mode_hang(self, said: dict[str, Any], arena: mmap.mmap) -> None:
        """Once asked for it, say that the batch was reached; then take no notice of anything."""
        self.socket.recv(1, socket.MSG_PEEK)
        self.send({"type": "loaded", "handle": 999, "platform": "", "inputs": [], "outputs": []})
        reading, _writing = os.pipe()
        os.read(reading, 1)


if __name__ == "__main__":
    Worker(int(sys.argv[sys.argv.index("--fd") + 1])).run()
