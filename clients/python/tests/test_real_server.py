"""The client against the real server, over every transport. Skipped where the server is not installed.

`KINGPOLE_TEST_URL` names a server (host:port) that already runs and serves the model `echo`.
"""

import asyncio
import os

import kingpole_client
import numpy as np
import pytest
import real_server

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    named = os.environ.get("KINGPOLE_TEST_URL")
    if named:
        yield {"tcp": named}
        return
    directory = tmp_path_factory.mktemp("repository")
    path = directory / "k.sock"
    with real_server.serving(real_server.write_echo(directory), "--listen", f"unix:{path}") as address:
        yield {"unix": str(path), "tcp": address}


def url_of(scheme, addresses) -> str:
    """Return the URL of a transport; skips what is not there."""
    if scheme == "grpc":
        pytest.importorskip("grpc", reason="grpcio is not installed")
    if scheme != "unix":
        return f"{scheme}://{addresses['tcp']}"
    if "unix" not in addresses:
        pytest.skip("KINGPOLE_TEST_URL names no Unix socket")
    return f"unix:{addresses['unix']}"


@pytest.fixture(params=["http", "frame", "unix", "grpc"])
def client(request, addresses):
    with kingpole_client.connect(url_of(request.param, addresses), timeout_us=20_000_000) as client:
        assert client.ready("echo")
        yield client


def test_identity_gives_back_what_it_got(client):
    response = client.infer("echo", {"x": X}, id="7")
    np.testing.assert_array_equal(response["x"], X)
    assert (response.model, response.id) == ("echo", "7")


def test_a_big_tensor_comes_back(client):
    big = np.random.default_rng(0).normal(size=(8, 1 << 19)).astype(np.float32)
    np.testing.assert_array_equal(client.infer("echo", {"x": big})["x"], big)


def test_many_are_in_flight_and_come_back_in_order(client):
    many = client.infer_many("echo", ({"x": np.full((1, 4), i, np.float32)} for i in range(1000)))
    assert [int(response["x"][0, 0]) for response in many] == list(range(1000))


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(kingpole_client.NotFound, match="unknown model"):
        client.infer("none", {"x": X})


def test_a_wrong_datatype_is_an_invalid_argument_that_names_the_tensor(client):
    with pytest.raises(kingpole_client.InvalidArgument, match="x"):
        client.infer("echo", {"x": X.astype(np.int64)})


def test_the_server_is_described(client):
    assert client.live()
    assert client.metadata().name == "kingpole"
    metadata = client.metadata("echo")
    assert [(spec.name, spec.datatype) for spec in metadata.inputs] == [("x", "FP32")]
    assert [row.name for row in client.models()] == ["echo"]


@pytest.mark.parametrize("scheme", ["http", "frame", "unix", "grpc"])
def test_the_async_client_does_the_same(scheme, addresses):
    url = url_of(scheme, addresses)

    async def ask() -> None:
        async with await kingpole_client.aconnect(url, timeout_us=20_000_000) as client:
            assert await client.ready("echo")
            many = client.infer_many("echo", ({"x": np.full((1, 4), i, np.float32)} for i in range(300)))
            assert [int(response["x"][0, 0]) async for response in many] == list(range(300))
            with pytest.raises(kingpole_client.NotFound, match="unknown model"):
                await client.infer("none", {"x": X})
            assert (await client.metadata("echo")).name == "echo"
            assert [row.name for row in await client.models()] == ["echo"]

    asyncio.run(ask())
