"""The codec endpoint: who is answered, which pages may ask, and that Temporal's own tools can use it."""

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientResponse, CookieJar
from aiohttp.test_utils import TestClient, TestServer
from google.protobuf import json_format
from pydantic import SecretStr
from temporalio.api.common.v1 import Payloads
from temporalio.client import Client

from hostler.codec import converter_with
from hostler.contract.errors import InvalidRequest
from hostler.encryption import Key, Keys
from hostler.settings import CodecSettings, EncryptionSettings, Settings, TemporalSettings
from tests.certificates import Authority
from tests.conftest import TEMPORAL
from workers.codec import access
from workers.codec.access import COOKIE, Access, load_tokens
from workers.codec.server import CodecServer, check_use, tls_context

KEY = Key.generate("one")
TOKEN, OTHER = "alices-token-0123456789", "bobs-token-0123456789"
UI = "http://127.0.0.1:8233"
HELD = {"Authorization": f"Bearer {TOKEN}"}
NOBODY = 65534


def settings(**codec: Any) -> Settings:
    return Settings(
        temporal=TemporalSettings(ui_url=UI, namespace="cloud"),
        encryption=EncryptionSettings(keys=SecretStr(KEY.line)),
        codec=CodecSettings(tokens=SecretStr(f"alice:{TOKEN}\nbob:{OTHER}"), **codec),
    )


def server(ours: Settings) -> TestServer:
    access = Access(load_tokens(ours.codec), ours.codec.same_user)
    return TestServer(CodecServer(ours, access).application())


@pytest.fixture
async def endpoint() -> AsyncIterator[TestClient[Any, Any]]:
    """One that asks for a token. It is spoken to by its address, as a browser does."""
    async with TestClient(server(settings()), cookie_jar=CookieJar(unsafe=True)) as client:
        yield client


@pytest.fixture
async def open_endpoint() -> AsyncIterator[TestClient[Any, Any]]:
    """One that answers its own user."""
    async with TestClient(server(settings(same_user=True))) as client:
        yield client


async def body(value: object = "secret", keys: Keys | None = None) -> str:
    """A request with an encrypted value."""
    payloads = await converter_with(Keys([KEY]) if keys is None else keys).encode([value])
    return json_format.MessageToJson(Payloads(payloads=payloads))


async def value(answer: ClientResponse) -> object:
    """What an answer decodes to without any key."""
    assert answer.status == 200, await answer.text()
    payloads = json_format.Parse(await answer.text(), Payloads())
    return (await converter_with(Keys()).decode(payloads.payloads))[0]


async def test_the_holder_of_a_token_reads(endpoint: TestClient[Any, Any]) -> None:
    assert await value(await endpoint.post("/decode", data=await body(), headers=HELD)) == "secret"


async def test_only_the_end_of_the_path_counts(endpoint: TestClient[Any, Any]) -> None:
    for path in ("/cloud/decode", "/any/where/decode?preserveStorageRefs=true"):
        assert await value(await endpoint.post(path, data=await body(), headers=HELD)) == "secret"


async def test_what_is_not_encrypted_comes_back_as_it_is(endpoint: TestClient[Any, Any]) -> None:
    assert await value(await endpoint.post("/decode", data=await body(keys=Keys()), headers=HELD)) == "secret"


async def test_it_encrypts_what_the_ui_sends(endpoint: TestClient[Any, Any]) -> None:
    answer = await endpoint.post("/encode", data=await body(keys=Keys()), headers=HELD)
    payloads = json_format.Parse(await answer.text(), Payloads())
    assert payloads.payloads[0].metadata["encryption-key-id"] == b"one"
    assert (await converter_with(Keys([KEY])).decode(payloads.payloads))[0] == "secret"


@pytest.mark.parametrize("path", ["/decode", "/encode"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": f"{COOKIE}=9999999999.0"}],
    ids=["nothing", "another token", "no bearer", "a made-up cookie"],
)
async def test_others_are_not_answered(endpoint: TestClient[Any, Any], path: str, headers: dict[str, str]) -> None:
    answer = await endpoint.post(path, data=await body(), headers=headers)
    assert answer.status == 401
    assert "secret" not in await answer.text()


async def test_another_namespace_is_none_of_its_business(endpoint: TestClient[Any, Any]) -> None:
    sent = await body()
    answer = await endpoint.post("/decode", data=sent, headers={**HELD, "X-Namespace": "theirs"})
    assert json_format.Parse(await answer.text(), Payloads()) == json_format.Parse(sent, Payloads())


@pytest.mark.parametrize("data", ["", "hello", '{"payloads": 3}'])
async def test_what_is_no_request_is_refused(endpoint: TestClient[Any, Any], data: str) -> None:
    assert (await endpoint.post("/decode", data=data, headers=HELD)).status == 400


async def test_a_missing_key_is_named(endpoint: TestClient[Any, Any]) -> None:
    answer = await endpoint.post("/decode", data=await body(keys=Keys([Key.generate("lost")])), headers=HELD)
    assert (answer.status, "lost is missing" in await answer.text()) == (400, True)


class TestBrowsers:
    """The rules of CORS."""

    async def test_the_uis_pages_may_ask_with_cookies(self, endpoint: TestClient[Any, Any]) -> None:
        for origin in (UI, "http://localhost:8233"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            allowed = await endpoint.options("/decode", headers=asked)
            assert allowed.status == 204
            assert allowed.headers["Access-Control-Allow-Origin"] == origin
            assert allowed.headers["Access-Control-Allow-Credentials"] == "true"
            assert "X-Namespace" in allowed.headers["Access-Control-Allow-Headers"]
            answer = await endpoint.post("/decode", data=await body(), headers={**HELD, "Origin": origin})
            assert (answer.headers["Access-Control-Allow-Origin"], await value(answer)) == (origin, "secret")

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8233.evil.example"])
    async def test_others_may_not_whatever_they_show(self, endpoint: TestClient[Any, Any], origin: str) -> None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for answer in (
            await endpoint.options("/decode", headers=asked),
            await endpoint.post("/decode", data=await body(), headers={**HELD, "Origin": origin}),
        ):
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_a_refusal_is_readable_by_the_ui(self, endpoint: TestClient[Any, Any]) -> None:
        answer = await endpoint.post("/decode", data=await body(), headers={"Origin": UI})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, UI)

    async def test_a_login_is_a_cookie_that_reads(self, endpoint: TestClient[Any, Any]) -> None:
        assert "<form" in await (await endpoint.get("/")).text()
        own = f"http://{endpoint.host}:{endpoint.port}"
        answer = await endpoint.post(
            "/login", data={"token": f" {TOKEN} "}, headers={"Origin": own}, allow_redirects=False
        )
        assert (answer.status, answer.headers["Location"]) == (303, UI)
        cookie = answer.cookies[COOKIE]
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
        assert TOKEN not in cookie.value
        assert await value(await endpoint.post("/decode", data=await body(), headers={"Origin": UI})) == "secret"

    async def test_a_login_with_a_wrong_token_is_none(self, endpoint: TestClient[Any, Any]) -> None:
        answer = await endpoint.post("/login", data={"token": "wrong"}, allow_redirects=False)
        assert (answer.status, COOKIE in answer.cookies) == (401, False)

    def test_a_cookie_ends_with_its_time_and_with_its_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        both = Access({"alice": TOKEN, "bob": OTHER}, same_user=False)
        cookie = both.cookie("alice")
        assert both._cookie_holder(cookie) == "alice"
        assert Access({"bob": OTHER}, same_user=False)._cookie_holder(cookie) is None
        longer = f"{int(cookie.partition('.')[0]) + 1}.{cookie.partition('.')[2]}"
        assert both._cookie_holder(longer) is None
        monkeypatch.setattr("time.time", lambda: 1e11)
        assert both._cookie_holder(cookie) is None


class TestTheSameUser:
    """On loopback the kernel knows whose a connection is."""

    ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], data=sys.stdin.buffer.read()).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""

    async def test_is_answered_without_a_token(self, open_endpoint: TestClient[Any, Any]) -> None:
        assert await value(await open_endpoint.post("/decode", data=await body())) == "secret"

    async def test_is_not_where_that_is_not_wanted(self, endpoint: TestClient[Any, Any]) -> None:
        assert (await endpoint.post("/decode", data=await body())).status == 401

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    async def test_another_user_is_not(self, open_endpoint: TestClient[Any, Any]) -> None:
        url, sent = f"http://127.0.0.1:{open_endpoint.port}/decode", await body()
        shown = []
        for user in (os.geteuid(), NOBODY):
            ask = partial(
                subprocess.run,
                ["/usr/bin/env", "python3", "-c", self.ASK, url],
                input=sent,
                text=True,
                user=user,
                capture_output=True,
                check=True,
                cwd="/",
            )
            asked = await asyncio.to_thread(ask)
            shown.append(asked.stdout.strip())
        assert shown == ["200", "401"]

    def test_addresses_are_written_as_the_kernel_does(self) -> None:
        assert access._hex((ip_address("127.0.0.1"), 8234)) == "0100007F:202A"
        assert access._hex((ip_address("::1"), 80)) == "00000000000000000000000001000000:0050"


async def test_temporals_command_line_reads_with_a_token(temporal_server: str, namespace: str) -> None:
    client = await Client.connect(temporal_server, namespace=namespace, data_converter=converter_with(Keys([KEY])))
    run = await client.start_workflow("boot", "recognisable", id=f"server:{uuid4()}", task_queue="nobody's")
    ours = settings().model_copy(update={"temporal": TemporalSettings(ui_url=UI, namespace=namespace)})

    async def show(**environment: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(str(TEMPORAL), "workflow", "show", "--address", temporal_server, "--namespace", namespace),
            *("--workflow-id", run.id, "--output", "json"),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0].decode()

    async with TestClient(server(ours)) as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}"
        value = base64.b64encode(b'"recognisable"').decode()  # as JSON shows bytes
        assert value not in await show()
        shown = await show(TEMPORAL_CODEC_ENDPOINT=url, TEMPORAL_CODEC_AUTH=f"Bearer {TOKEN}")
        assert value in shown


class TestSettings:
    def test_without_keys_or_without_anybody_who_may_ask_it_does_not_start(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="no encryption key"):
            check_use(Settings(state_dir=tmp_path, codec=CodecSettings(same_user=True)))
        alone = settings().model_copy(update={"codec": CodecSettings()})
        with pytest.raises(InvalidRequest, match="there is no token"):
            check_use(alone)

    def test_beyond_this_machine_only_with_https(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="in clear"):
            tls_context(CodecSettings(address="0.0.0.0"))
        certificate, key = Authority(tmp_path).issue("codec")
        assert tls_context(CodecSettings(address="0.0.0.0", certificate=certificate, certificate_key=key))
        key.chmod(0o644)
        with pytest.raises(InvalidRequest, match="holds secrets"):
            tls_context(CodecSettings(address="0.0.0.0", certificate=certificate, certificate_key=key))

    @pytest.mark.parametrize("text", [f":{TOKEN}", "alice:short", TOKEN, f"a:{TOKEN}\na:{OTHER}"])
    def test_a_line_that_is_no_token_is_told_but_not_shown(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="line") as caught:
            load_tokens(CodecSettings(tokens=SecretStr(text)))
        assert TOKEN not in caught.value.detail.model_dump_json()

    def test_a_token_file_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens"
        file.write_text(f"alice:{TOKEN}")
        file.chmod(0o644)
        with pytest.raises(InvalidRequest, match="holds secrets"):
            load_tokens(CodecSettings(tokens_file=file))
