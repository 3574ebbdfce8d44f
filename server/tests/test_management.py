from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import onnx_models
import pytest
from kingpole.lifecycle import Lifecycle
from kingpole.management import is_local, listen, make_application
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
    async with client.get("/repository") as response:
        assert (await response.json())[0]["reason"] == "unloaded"


@pytest.mark.parametrize(("name", "status"), [("no", 404), ("%2e%2e%2fx", 400)])
async def test_a_refused_load_has_a_status(client: aiohttp.ClientSession, name: str, status: int) -> None:
    async with client.post(f"/repository/{name}/load") as response:
        assert response.status in (status, 404)
        assert response.status != 200


async def test_a_body_that_is_no_json_is_refused(client: aiohttp.ClientSession) -> None:
    async with client.post("/repository/m/load", data=b"{") as response:
        assert response.status == 400


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
async def test_browsers_are_refused(client: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with client.post("/repository/m/load", headers=headers) as response:
        assert response.status == 403


async def test_health_follows_readiness(client: aiohttp.ClientSession) -> None:
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"ready": True})


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("[::1]", True),
                                             ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False),
                                             ("evil.example", False)])  # fmt: skip
def test_only_loopback_is_local(host: str, local: bool) -> None:
    assert is_local(host) is local
