"""Memory shared with the whole server: named regions under attack, and our own client over a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kingpole_client
import numpy as np
import pytest
from served_process import Served, needs_core

pytestmark = needs_core

NAMES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16,
    "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
BYTES = 1 << 16


def write_models(directory: Path) -> Path:
    for datatype in (*NAMES, "BYTES", "BF16"):
        name = datatype.lower()
        (directory / name).mkdir(parents=True)
        tensor = f"[{{name: x, datatype: {datatype}, shape: [-1]}}]"
        (directory / name / "model.yaml").write_text(
            f"backend: identity\nmax_batch_size: 0\ninputs: {tensor}\noutputs: {tensor}\n"
        )
    return directory


class SharedServer(Served):
    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket = f"unix:{directory / 'k.sock'}"
        models = write_models(directory / "models")
        super().__init__(str(models), "--listen", self.socket, *arguments)

    def connect(self, shared_memory: str = "8MiB") -> kingpole_client.Client:
        return kingpole_client.connect(self.socket, shared_memory=shared_memory, timeout_us=20_000_000)

    def region(self, action: str, name: str = "r", **body: Any) -> Any:
        return self.ask(f"/v2/systemsharedmemory/region/{name}/{action}", body or {})

    def infer_in_region(self, model: str, datatype: str, elements: int, nbytes: int, **output: Any) -> Any:
        place = {"shared_memory_region": "r", "shared_memory_byte_size": nbytes}
        tensor = {"name": "x", "datatype": datatype, "shape": [elements], "parameters": place}
        request: dict[str, Any] = {"inputs": [tensor]}
        if output:
            request["outputs"] = [{"name": "x", "parameters": output}]
        return self.ask(f"/v2/models/{model}/infer", request)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    started = SharedServer(tmp_path_factory.mktemp("shared"), "--client-shared-memory")
    yield started
    # Whatever was done to it, it is alive and ends well.
    assert started.process.poll() is None
    started.stop()


@pytest.fixture
def file(server: SharedServer) -> Iterator[Path]:
    path = Path("/dev/shm", f"kingpole_test_{os.getpid()}")
    path.write_bytes(bytes(BYTES))
    yield path
    server.region("unregister")
    path.unlink(missing_ok=True)
    assert server.ask("/v2/health/ready")[0] == 200


def register(server: SharedServer, file: Path, nbytes: int = BYTES) -> None:
    assert server.region("register", key=f"/{file.name}", byte_size=nbytes)[0] == 200


@contextlib.contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            change()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_regions_are_off_unless_asked_for(tmp_path):
    started = SharedServer(tmp_path)
    try:
        for status, said in (
            started.region("register", key="/x", byte_size=1),
            started.region("unregister"),
            started.ask("/v2/systemsharedmemory/status"),
            started.infer_in_region("fp32", "FP32", 1, 4),
        ):
            assert status == 501
            assert "--client-shared-memory" in said["error"]
        assert "system_shared_memory" not in started.ask("/v2")[1]["extensions"]
    finally:
        started.stop()


def test_the_server_says_that_regions_are_on(server):
    assert "system_shared_memory" in server.ask("/v2")[1]["extensions"]


def test_only_files_with_an_allowed_name_can_be_registered(tmp_path):
    started = SharedServer(tmp_path, "--client-shared-memory", "--shared-memory-prefix", "mine_")
    try:
        assert started.region("register", key="/theirs", byte_size=1)[0] == 403
        assert started.region("register", key="/mine_absent", byte_size=1)[0] == 400
    finally:
        started.stop()


def test_a_file_shortened_after_it_was_registered_is_an_error(server, file):
    register(server, file)
    os.truncate(file, 100)
    status, said = server.infer_in_region("fp32", "FP32", 1000, 4000)
    assert (status, "shorter" in said["error"]) == (400, True)
    assert server.infer_in_region("fp32", "FP32", 25, 100)[0] == 200
    output = {"shared_memory_region": "r", "shared_memory_byte_size": 100, "shared_memory_offset": 4096}
    assert server.infer_in_region("fp32", "FP32", 25, 100, **output)[0] == 400


def test_a_file_that_changes_its_size_all_the_time_never_ends_the_server(server, file):
    register(server, file)

    def change() -> None:
        os.truncate(file, 0)
        os.truncate(file, BYTES)

    output = {"shared_memory_region": "r", "shared_memory_byte_size": BYTES}
    with meanwhile(change):
        for _ in range(300):
            status, said = server.infer_in_region("fp32", "FP32", BYTES // 4, BYTES, **output)
            assert status in (200, 400), said


def test_links_and_what_is_no_shared_memory_are_refused(server, file, tmp_path):
    shared = Path("/dev/shm")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100)
    link, pipe, second = (shared / f"{file.name}_{kind}" for kind in ("link", "pipe", "second"))
    link.symlink_to(secret)
    os.mkfifo(pipe)
    second.hardlink_to(file)
    try:
        for path in (link, pipe, second, shared):
            key = "/" if path == shared else f"/{path.name}"
            status, said = server.region("register", key=key, byte_size=8)
            assert status == 400, said
            assert str(tmp_path) not in said["error"]
    finally:
        for path in (link, pipe, second):
            path.unlink()


@pytest.mark.parametrize(
    "body",
    [{}, {"key": 1}, {"key": "/x"}]
    + [{"key": "/x", "byte_size": nbytes} for nbytes in (-1, 1.5, 2**64, "8")],
)
def test_a_registration_that_makes_no_sense_is_refused(server, body):
    assert server.ask("/v2/systemsharedmemory/region/r/register", body)[0] == 400


def test_no_more_than_a_thousand_regions_are_taken(server, file):
    refused = 0
    for number in range(1100):
        status, _ = server.region("register", f"many{number}", key=f"/{file.name}", byte_size=8)
        assert status in (200, 429)
        refused += status == 429
    assert refused == 76
    assert server.ask("/v2/systemsharedmemory/unregister", {})[0] == 200
    assert server.ask("/v2/systemsharedmemory/status")[1] == []


def test_text_whose_lengths_change_while_it_is_read_never_ends_the_server(server, file):
    register(server, file)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), BYTES) as memory:

        def change() -> None:
            memory[0:4] = (0xFFFFFFF0).to_bytes(4, "little")
            memory[0:4] = (BYTES - 4).to_bytes(4, "little")

        with meanwhile(change):
            for _ in range(200):
                assert server.infer_in_region("bytes", "BYTES", 1, BYTES)[0] in (200, 400)


@pytest.mark.parametrize("datatype", NAMES)
@pytest.mark.parametrize("elements", [0, 5, 200_000])
def test_our_client_gets_back_every_datatype(server, datatype, elements):
    random = np.random.default_rng(1)
    x = random.integers(0, 2, elements).astype(NAMES[datatype])
    with server.connect() as client:
        mine = client.empty(elements, NAMES[datatype])
        mine[...] = x
        for sent in (x, mine, x, mine):
            given = client.infer(datatype.lower(), {"x": sent})["x"]
            assert given.dtype == x.dtype
            np.testing.assert_array_equal(given, x)


def test_our_client_gets_back_text_and_bf16(server):
    texts = np.array([f"text {number}" * (number % 7) for number in range(3000)], object)
    with server.connect() as client:
        for _ in range(3):
            given = client.infer("bytes", {"x": texts})["x"]
            assert [each.decode() for each in given] == list(texts)
            numbers = np.linspace(-1, 1, 20_000, dtype=np.float32)
            half = kingpole_client.BFloat16.from_float32(numbers)
            bits = np.asarray(client.infer("bf16", {"x": half})["x"]).view(np.uint16)
            np.testing.assert_array_equal(bits, half.bits)


def test_outputs_stay_as_they_are_while_they_are_held(server):
    with server.connect("4MiB") as client:
        held = []
        for number in range(40):
            # More than fits: then answers come through the socket, and all the same.
            x = np.full(60_000, number, np.float32)
            held.append(client.infer("fp32", {"x": x})["x"])
        for number, each in enumerate(held):
            assert (each == number).all()


def test_many_threads_share_the_memory(server):
    with server.connect("16MiB") as client:
        failures: list[BaseException] = []

        def run(number: int) -> None:
            try:
                for _ in range(20):
                    x = np.full(30_000, number, np.float32)
                    assert (client.infer("fp32", {"x": x})["x"] == number).all()
            except BaseException as error:  # noqa: BLE001 - shown below, from the main thread
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_memory_of_a_dropped_array_is_used_again(server):
    with server.connect("1MiB") as client:
        for _ in range(10):
            array = client.empty((200_000,), np.float32)
            with pytest.raises(kingpole_client.ResourceExhausted, match="no room"):
                client.empty((200_000,), np.float32)
            del array


def test_a_request_given_up_gives_its_memory_back(server):
    with server.connect("4MiB") as client:
        x = np.ones(200_000, np.float32)
        for _ in range(200):
            pending = client.submit("fp32", {"x": x})
            pending.cancel()
        # It comes back when the server says of each that it is done with it: these wait in the same queue.
        for _ in range(500):
            assert client.infer("fp32", {"x": x[:1]})["x"].size == 1
            with contextlib.suppress(kingpole_client.ResourceExhausted):
                assert client.empty((900_000,), np.float32).nbytes == 3_600_000
                break
        else:
            raise AssertionError("the memory of requests given up did not come back")


def test_memory_is_shared_over_unix_sockets_only(server):
    with pytest.raises(kingpole_client.InvalidArgument, match="Unix sockets only"):
        kingpole_client.connect(server.url, shared_memory="1MiB")
    for wrong in ("many", "MiB", "-1MiB", 0):
        with pytest.raises(kingpole_client.InvalidArgument):
            kingpole_client.connect(server.socket, shared_memory=wrong)
    with kingpole_client.connect(server.socket) as client, pytest.raises(kingpole_client.InvalidArgument):
        client.empty(1, np.float32)


def test_a_server_without_room_refuses_the_memory(tmp_path):
    started = SharedServer(tmp_path, "--buffer-bytes", str(1 << 20))
    try:
        with started.connect("64MiB") as client, pytest.raises(kingpole_client.ResourceExhausted):
            client.infer("fp32", {"x": np.ones(3, np.float32)})
    finally:
        started.stop()


def test_status_of_regions_is_json(server, file):
    register(server, file)
    [row] = server.ask("/v2/systemsharedmemory/region/r/status")[1]
    assert json.dumps(row, sort_keys=True) == json.dumps(
        {"byte_size": BYTES, "key": f"/{file.name}", "name": "r", "offset": 0}
    )


def test_asyncio_shares_memory_too(server):
    async def run() -> None:
        async with await kingpole_client.aconnect(
            server.socket, shared_memory="8MiB", timeout_us=20_000_000
        ) as client:
            held = []
            for turn in range(4):
                x = await client.empty((100_000,), np.float32)
                x[:] = np.arange(100_000) + turn
                other = np.arange(100_000, dtype=np.float64) + turn
                one, two = await asyncio.gather(
                    client.infer("fp32", {"x": x}), client.infer("fp64", {"x": other})
                )
                np.testing.assert_array_equal(one["x"], x)
                np.testing.assert_array_equal(two["x"], other)
                held.append((x.copy(), one["x"]))
            for expected, found in held:
                np.testing.assert_array_equal(found, expected)
            with pytest.raises(kingpole_client.InvalidArgument):
                await client.infer("fp64", {"x": x})
            with pytest.raises(kingpole_client.ResourceExhausted):
                await client.empty((8 << 20,), np.float32)

    asyncio.run(run())


def test_asyncio_gives_the_memory_of_a_cancelled_request_back(server):
    async def run() -> None:
        async with await kingpole_client.aconnect(server.socket, shared_memory="2MiB") as client:
            x = np.ones(1 << 18, np.float32)
            for _ in range(20):
                asking = asyncio.ensure_future(client.infer("fp32", {"x": x}))
                await asyncio.sleep(0)
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
            # As above: these wait in the same queue.
            for _ in range(500):
                assert (await client.infer("fp32", {"x": x[:1]}))["x"].size == 1
                with contextlib.suppress(kingpole_client.ResourceExhausted):
                    assert (await client.empty((3 << 17,), np.float32)).nbytes == 3 << 19
                    return
            raise AssertionError("the memory of requests given up did not come back")

    asyncio.run(run())


def test_asyncio_shares_over_unix_sockets_only_and_says_what_is_refused(server, tmp_path):
    async def refused(url: str, kind: type[Exception], **options: Any) -> None:
        with pytest.raises(kind):
            async with await kingpole_client.aconnect(url, **options) as client:
                await client.empty((4,), np.float32)

    asyncio.run(refused(server.url, kingpole_client.InvalidArgument, shared_memory="1MiB"))
    asyncio.run(refused(server.socket, kingpole_client.InvalidArgument, shared_memory="1 MB"))
    asyncio.run(refused(server.socket, kingpole_client.InvalidArgument))
    asyncio.run(refused(f"unix:{tmp_path}/none", kingpole_client.Unavailable, shared_memory="1MiB"))
