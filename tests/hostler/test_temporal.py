"""The way to a real Temporal server: behind TLS, with and without client certificates, and in a cloud that encrypts."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import temporalio.client

from hostler import Client
from hostler.client.connection import connect
from hostler.contract.errors import DecryptionFailed, HostlerError, InvalidRequest, Unavailable
from hostler.encryption import Key, Keys
from hostler.settings import EncryptionSettings, Settings, TemporalSettings, TlsSettings
from hostler.temporal import announced_key, tls_config
from tests.certificates import Authority
from tests.hostler import peers
from workers.temporal_server import announce_key, wait_ready

CHUNK = 1 << 16


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whom the server and its clients trust."""
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def tls_proxy(upstream: str, authority: Authority, *, mutual: bool, **issue: Any) -> AsyncIterator[str]:
    """A server that ends TLS in front of Temporal; with `mutual` it wants a certificate of the authority's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", **issue))
    context.set_alpn_protocols(["h2"])
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    host, port = upstream.split(":")
    pumps: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        for one in (_pump(reader, there_writer), _pump(there_reader, writer)):
            pumps.add(asyncio.create_task(one))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


def settings(address: str, namespace: str, tmp_path: Path, **tls: Any) -> Settings:
    at = TemporalSettings(address=address, namespace=namespace, tls=TlsSettings(**tls))
    return Settings(state_dir=tmp_path, temporal=at)


async def test_a_call_goes_through_mutual_tls(
    temporal_server: str, namespace: str, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("client")
    async with tls_proxy(temporal_server, authority, mutual=True) as address, peers.cloud(temporal_server, namespace):
        ours = settings(
            *(address, namespace, tmp_path),
            enabled=True,
            server_ca=authority.certificate,
            client_cert=cert,
            client_key=key,
        )
        async with await Client.connect(ours) as client:
            assert await client.flavors.list() is not None
        assert (await wait_ready(ours.temporal)).namespace == namespace


async def test_a_name_that_is_not_the_address_is_checked_instead(
    temporal_server: str, namespace: str, authority: Authority, tmp_path: Path
) -> None:
    async with tls_proxy(temporal_server, authority, mutual=False, dns="temporal.internal") as address:
        ours = {"enabled": True, "server_ca": authority.certificate}
        await connect(settings(address, namespace, tmp_path, **ours, server_name="temporal.internal"), "default")
        with pytest.raises(Unavailable, match="with TLS"):
            await connect(settings(address, namespace, tmp_path, **ours, server_name="temporal.example"), "default")


@pytest.mark.parametrize("wrong", ["no certificate", "another authority's", "another server's authority", "no TLS"])
async def test_who_is_not_trusted_gets_no_connection(
    wrong: str, temporal_server: str, namespace: str, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    ca, (cert, key) = authority.certificate, authority.issue("client")
    tls: dict[str, Any] = {"enabled": True, "server_ca": ca, "client_cert": cert, "client_key": key}
    match wrong:
        case "no certificate":
            tls |= {"client_cert": None, "client_key": None}
        case "another authority's":
            tls |= dict(zip(("client_cert", "client_key"), stranger.issue("intruder"), strict=True))
        case "another server's authority":
            tls |= {"server_ca": stranger.certificate}
        case "no TLS":
            tls = {}
    async with tls_proxy(temporal_server, authority, mutual=True) as address:
        with pytest.raises(Unavailable, match=address) as caught:
            await connect(settings(address, namespace, tmp_path, **tls), "default")
        assert (caught.value.detail.field == "temporal.tls") == (wrong != "no TLS")


class TestFilesThatCannotBeUsed:
    def refused(self, **tls: Any) -> HostlerError:
        with pytest.raises(InvalidRequest) as caught:
            tls_config(TlsSettings(enabled=True, **tls))
        assert caught.value.remedy
        return caught.value

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        assert self.refused(server_ca=tmp_path / "nowhere").detail.field == "temporal.tls.server_ca"

    def test_one_that_is_no_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_text("hello")
        assert "no certificate" in str(self.refused(server_ca=tmp_path / "ca"))

    def test_a_certificate_without_its_key(self, authority: Authority) -> None:
        assert self.refused(client_cert=authority.certificate).detail.field == "temporal.tls.client_key"

    def test_the_key_of_another_certificate(self, authority: Authority) -> None:
        cert, _ = authority.issue("one")
        _, key = authority.issue("two")
        assert "is not the key of" in str(self.refused(client_cert=cert, client_key=key))

    def test_a_key_that_is_none(self, authority: Authority) -> None:
        cert, key = authority.issue("one")
        key.write_text("hello")
        assert "no private key" in str(self.refused(client_cert=cert, client_key=key))

    def test_a_key_that_others_can_read(self, authority: Authority) -> None:
        cert, key = authority.issue("one")
        key.chmod(0o644)
        assert "holds secrets" in str(self.refused(client_cert=cert, client_key=key))

    def test_nothing_is_read_while_tls_is_off(self, tmp_path: Path) -> None:
        assert tls_config(TlsSettings(server_ca=tmp_path / "nowhere")) is False


class TestACloudThatEncrypts:
    """Who could not read its answers must not write to it either: the request would stay in Temporal, in clear."""

    KEYS = Keys([Key.generate("new"), Key.generate("old")])

    @pytest.fixture
    async def announced(self, temporal_server: str, namespace: str) -> temporalio.client.Client:
        client = await temporalio.client.Client.connect(temporal_server, namespace=namespace)
        await announce_key(client, self.KEYS)
        assert await announced_key(client) == "new"
        return client

    def given(self, temporal_server: str, namespace: str, tmp_path: Path, *lines: str) -> Settings:
        ours = settings(temporal_server, namespace, tmp_path)
        if lines:
            file = tmp_path / "keys"
            file.touch(0o600)
            file.write_text("\n".join(lines))
            return ours.model_copy(update={"encryption": EncryptionSettings(keys_file=file)})
        return ours

    @pytest.mark.parametrize("lines", [[], [Key.generate("other").line]], ids=["no key", "another key"])
    async def test_it_is_told_before_anything_is_sent(
        self, announced: object, lines: list[str], temporal_server: str, namespace: str, tmp_path: Path
    ) -> None:
        with pytest.raises(DecryptionFailed, match="encrypts with key new, which is missing here") as caught:
            await Client.connect(self.given(temporal_server, namespace, tmp_path, *lines))
        assert "encryption.keys_file" in str(caught.value.remedy)

    async def test_the_key_may_be_any_of_those_that_a_client_has(
        self, announced: object, temporal_server: str, namespace: str, tmp_path: Path
    ) -> None:
        lines = [key.line for key in reversed(self.KEYS.all)]
        await Client.connect(self.given(temporal_server, namespace, tmp_path, *lines))

    async def test_a_worker_without_keys_takes_nothing_back(self, announced: temporalio.client.Client) -> None:
        await announce_key(announced, Keys())
        assert await announced_key(announced) == "new"

    async def test_a_new_first_key_is_announced_in_place_of_the_former(
        self, announced: temporalio.client.Client
    ) -> None:
        newest = Key.generate("newest")
        await announce_key(announced, Keys([newest, *self.KEYS.all]))
        assert await announced_key(announced) == "newest"

    async def test_an_answer_with_a_missing_key_is_an_error_that_names_it(
        self, temporal_server: str, namespace: str, tmp_path: Path
    ) -> None:
        """A client that began before the cloud had a key."""
        client = await Client.connect(self.given(temporal_server, namespace, tmp_path))
        workers = self.given(temporal_server, namespace, tmp_path, self.KEYS.all[0].line)
        async with peers.cloud(temporal_server, namespace, settings=workers):
            with pytest.raises(DecryptionFailed, match="key new is missing in this process; it has none"):
                await client.flavors.list()
