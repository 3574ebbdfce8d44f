from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import onnx_models
import pytest
from kingpole.lifecycle import Lifecycle
from kingpole.management import is_local, listen, make_application, reachable
from memory_core import MemoryCore


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    onnx_models.doubling(tmp_path / "m.onnx")
    core = MemoryCore()
    lifecycle = Lifecycle(core, [tmp_path], mode="explicit", report=lambda _: None)
    await lifecycle.start()
    runner, url = await listen(make_application(core, lifecycle), "127.0.0.1", 0)
    async with aiohttp.ClientSession(url) as session:
        yield session
    await runner.cleanup()


async def test_metrics_are_the_cores(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.content_type == "text/plain"
        assert await response.text() == "kingpole_up 1\n"


async def test_a_model_is_loaded_and_unloaded(client: aiohttp.ClientSession) -> None:
    async with client.post("/repository/m/load") as response:
        assert response.status == 200
    async with client.get("/repository") as response:
        (row,) = await response.json()
        assert (row["name"], row["version"], row["state"]) == ("m", "1", "READY")
    async with client.post("/repository/m/unload") as response:
        assert response.status == 200
    # Answered once nothing more is admitted; what the model took is given back after.
    for _ in range(1000):
        async with client.get("/repository") as response:
            (row,) = await response.json()
        if row["state"] != "UNLOADING":
            break
        await asyncio.sleep(0.01)
    assert row["reason"] == "unloaded"


@pytest.mark.parametrize(("name", "status"), [("no", 404), ("%2e%2e%2fx", 400)])
async def test_a_refused_load_has_a_status(client: aiohttp.ClientSession, name: str, status: int) -> None:
    async with client.post(f"/repository/{name}/load") as response:
        assert response.status in (status, 404)
        assert response.status != 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"3", b'{"parameters": 3}', b'{"parameters": []}', b"[" * 100_000, b"\xff"]
)
async def test_a_body_that_is_not_as_expected_is_refused(client: aiohttp.ClientSession, body: bytes) -> None:
    async with client.post("/repository/m/load", data=body) as response:
        assert response.status == 400
        assert "expected" in (await response.json())["error"]


@pytest.mark.parametrize("path", ["/repository/m/load", "/docs", "/openapi.json"])
@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
async def test_pages_of_others_are_refused(
    client: aiohttp.ClientSession, headers: dict[str, str], path: str
) -> None:
    ask = client.post if path.endswith("load") else client.get
    async with ask(path, headers=headers) as response:
        assert response.status == 403


async def test_the_page_of_what_is_served_follows_the_repository(client: aiohttp.ClientSession) -> None:
    async with client.get("/docs") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "not loaded" in await response.text()
    await client.post("/repository/m/load")
    async with client.get("/docs") as response:
        assert "/v2/models/m/infer" in await response.text()
    async with client.get("/openapi.json") as response:
        assert "/v2/models/m/infer" in (await response.json())["paths"]
    async with client.get("/examples/m/1") as response:
        assert (await response.json())["inputs"][0]["name"] == "x"


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("http://0.0.0.0:8000", "box.example:8002", "http://box.example:8000"),
        ("http://[::]:8000", "[fd00::1]:8002", "http://[fd00::1]:8000"),
        ("http://0.0.0.0:8000", "<script>", "http://localhost:8000"),
        ("http://127.0.0.1:8000", "box.example", "http://127.0.0.1:8000"),
        ("unix:/run/k", "box.example", "unix:/run/k"),
    ],
)
def test_a_listener_on_every_address_is_where_the_reader_is(url: str, host: str, shown: str) -> None:
    assert reachable([url], host) == [shown]


async def test_health_follows_readiness(client: aiohttp.ClientSession) -> None:
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"ready": True})


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("[::1]", True),
                                             ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False),
                                             ("evil.example", False)])  # fmt: skip
def test_only_loopback_is_local(host: str, local: bool) -> None:
    assert is_local(host) is local
