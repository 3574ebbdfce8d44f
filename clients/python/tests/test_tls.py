"""TLS against the real server: what is trusted, what is refused, and what the refusal says."""

import asyncio
import ssl

import kingpole_client
import numpy as np
import pytest
import real_server

trustme = pytest.importorskip("trustme", reason="trustme is not installed")
X = np.arange(6, dtype=np.float32).reshape(2, 3)
SCHEMES = ["https", "grpcs"]


class Secured:
    """A server with a certificate for `localhost`, and who signed it."""

    def __init__(self, port, authority):
        self.port, self.pem = port, authority.cert_pem.bytes()

    def url(self, scheme, host="localhost"):
        if scheme == "grpcs":
            pytest.importorskip("grpc", reason="grpcio is not installed")
        return f"{scheme}://{host}:{self.port}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    (directory / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (directory / "certificate.pem").write_bytes(chain)
    arguments = ["--tls-certificate", str(directory / "certificate.pem")]
    arguments += ["--tls-key", str(directory / "key.pem")]
    with real_server.serving(real_server.write_echo(directory / "models"), *arguments) as address:
        yield Secured(address.rpartition(":")[2], authority)


def check_served(client):
    """Frames, and the calls that travel as Open Inference, all over the same TLS."""
    for _ in range(3):
        np.testing.assert_array_equal(client.infer("echo", {"x": X})["x"], X)
    big = np.random.default_rng(0).normal(size=(8, 1 << 18)).astype(np.float32)
    np.testing.assert_array_equal(client.infer("echo", {"x": big})["x"], big)
    many = client.infer_many("echo", ({"x": np.full((1, 2), i, np.float32)} for i in range(50)), in_flight=4)
    assert [int(response["x"][0, 0]) for response in many] == list(range(50))
    assert client.live()
    assert client.ready("echo")
    assert client.metadata().name == "kingpole"
    assert client.metadata("echo").inputs[0].name == "x"
    assert [row.name for row in client.models()] == ["echo"]
    with pytest.raises(kingpole_client.NotFound, match="unknown model"):
        client.infer("none", {"x": X})


async def check_served_async(client):
    np.testing.assert_array_equal((await client.infer("echo", {"x": X}))["x"], X)
    big = np.random.default_rng(0).normal(size=(8, 1 << 18)).astype(np.float32)
    np.testing.assert_array_equal((await client.infer("echo", {"x": big}))["x"], big)
    assert await client.ready("echo")
    assert (await client.metadata("echo")).inputs[0].name == "x"
    assert [row.name for row in await client.models()] == ["echo"]
    with pytest.raises(kingpole_client.NotFound, match="unknown model"):
        await client.infer("none", {"x": X})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_who_signed_the_certificate_is_trusted_when_given_as_pem(secured, scheme):
    options = {"root_certificates": secured.pem, "timeout_us": 20_000_000}
    with kingpole_client.connect(secured.url(scheme), **options) as client:
        check_served(client)

    async def ask():
        async with await kingpole_client.aconnect(secured.url(scheme), **options) as client:
            await check_served_async(client)

    asyncio.run(ask())


def test_a_context_of_the_callers_own_decides_for_https(secured):
    context = ssl.create_default_context(cadata=secured.pem.decode())
    with kingpole_client.connect(secured.url("https"), tls=context) as client:
        check_served(client)

    async def ask():
        async with await kingpole_client.aconnect(secured.url("https"), tls=context) as client:
            await check_served_async(client)

    asyncio.run(ask())


def test_a_connection_over_tls_is_kept_and_used_again(secured):
    handshakes = []
    context = ssl.create_default_context(cadata=secured.pem.decode())

    class Counting:
        def wrap_socket(self, *arguments, **options):
            handshakes.append(1)
            return context.wrap_socket(*arguments, **options)

    with kingpole_client.connect(secured.url("https"), tls=Counting()) as client:
        for _ in range(5):
            client.infer("echo", {"x": X})
            assert client.ready("echo")
    assert len(handshakes) == 1


def refusals(url, **options):
    """What both clients say to an inference and to a question at an address they must not trust."""
    found = []
    with kingpole_client.connect(url, timeout_us=20_000_000, **options) as client:
        for ask in (lambda: client.infer("echo", {"x": X}), client.metadata, client.models):
            with pytest.raises(kingpole_client.Unavailable) as caught:
                ask()
            found.append(caught.value.message)
        assert not client.live()

    async def ask_async():
        async with await kingpole_client.aconnect(url, timeout_us=20_000_000, **options) as client:
            for ask in (lambda: client.infer("echo", {"x": X}), client.metadata, client.models):
                with pytest.raises(kingpole_client.Unavailable) as caught:
                    await ask()
                found.append(caught.value.message)

    asyncio.run(ask_async())
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_that_nobody_trusted_signed_is_refused_and_the_error_says_so(secured, scheme):
    url = secured.url(scheme)
    for options in ({}, {"root_certificates": trustme.CA().cert_pem.bytes()}):
        for message in refusals(url, **options):
            assert url in message
            assert "certificate" in message.lower()
            assert "verify failed" in message.lower().replace("_", " ")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_for_another_host_is_refused_and_the_error_says_so(secured, scheme):
    url = secured.url(scheme, host="127.0.0.1")
    for message in refusals(url, root_certificates=secured.pem):
        assert url in message
        assert any(word in message.lower() for word in ("mismatch", "hostname verification"))


@pytest.mark.parametrize("scheme", ["http", "grpc", "frame"])
def test_plain_text_to_a_server_that_speaks_tls_still_is_served(secured, scheme):
    # One listener for everything: TLS is recognized by its first byte.
    if scheme == "grpc":
        pytest.importorskip("grpc", reason="grpcio is not installed")
    with kingpole_client.connect(f"{scheme}://127.0.0.1:{secured.port}") as client:
        np.testing.assert_array_equal(client.infer("echo", {"x": X})["x"], X)


def test_tls_to_a_server_that_speaks_none_is_unavailable(tmp_path):
    pytest.importorskip("grpc", reason="grpcio is not installed")
    with real_server.serving(real_server.write_echo(tmp_path)) as address:
        for scheme in SCHEMES:
            for message in refusals(f"{scheme}://{address}"):
                assert address in message


@pytest.mark.parametrize("pem", [b"", b"no certificate", "Grüße".encode(), b"\xff\x00"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_roots_that_are_no_pem_are_an_invalid_argument(scheme, pem):
    for kind in (kingpole_client.Client, kingpole_client.AsyncClient):
        with pytest.raises(kingpole_client.InvalidArgument, match="root_certificates"):
            kind(f"{scheme}://localhost:1", root_certificates=pem)


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("http://localhost:1", {"root_certificates": b"-"}, "root_certificates"),
        ("unix:/nowhere", {"root_certificates": b"-"}, "root_certificates"),
        ("grpc://localhost:1", {"root_certificates": b"-"}, "root_certificates"),
        ("http://localhost:1", {"tls": ssl.create_default_context()}, "tls"),
        ("frame://localhost:1", {"tls": ssl.create_default_context()}, "tls"),
        ("grpcs://localhost:1", {"tls": ssl.create_default_context()}, "tls"),
    ],
)
def test_what_would_not_be_used_is_refused_and_not_ignored(url, options, named):
    for kind in (kingpole_client.Client, kingpole_client.AsyncClient):
        with pytest.raises(kingpole_client.InvalidArgument, match=named):
            kind(url, **options)
