"""Calls: answered, refused, and left without an answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from hostler import (
    BuildFailed,
    Client,
    Conflict,
    HostlerError,
    InvalidRequest,
    InvalidState,
    NotFound,
    OperationFailed,
    Server,
    Settings,
    Unavailable,
    VmState,
)
from hostler.client.connection import connect
from hostler.client.migrations import LIMIT
from hostler.contract.calls import MAX_MIGRATIONS, MigrationFilter
from hostler.contract.servers import BootRequest, MigrationKind, MigrationStatus, ServerMigration
from tests.hostler.peers import HOST_ID, MOVED, Catalogue, cloud, server_of


@pytest.fixture
async def catalogue(temporal_server: str, namespace: str) -> AsyncIterator[Catalogue]:
    """A cloud whose workers run."""
    async with cloud(temporal_server, namespace) as catalogue:
        yield catalogue


@pytest.fixture
async def client(temporal_server: str, namespace: str) -> Client:
    """A client that is less patient than others."""
    settings = Settings()
    settings.temporal.address, settings.temporal.namespace = temporal_server, namespace
    settings.timeouts.host_answer = timedelta(seconds=1)
    connection = await connect(settings, "default")
    return Client(replace(connection, patience=timedelta(seconds=1), limit=timedelta(seconds=3)))


def server(name: str, vm_state: VmState = VmState.ACTIVE) -> Server:
    """A server for the catalogue."""
    server_id = str(uuid4())
    request = BootRequest(server_id=server_id, request_id=server_id, name=name, flavor="tiny", image="demo")
    return server_of(request, vm_state)


async def test_things_are_made_listed_and_deleted(client: Client, catalogue: Catalogue) -> None:
    made = await client.flavors.create("tiny", vcpus=1, ram_mib=64)
    assert await client.flavors.list() == [made]
    assert await client.flavors.show("tiny") == made
    await client.flavors.delete("tiny")
    assert await client.flavors.list() == []
    assert (await client.networks.create("private", cidr="10.0.0.0/24")).cidr == "10.0.0.0/24"


async def test_hosts_are_disabled_with_a_reason(client: Client, catalogue: Catalogue) -> None:
    host = await client.hosts.disable("node-1", "new memory")
    assert (host.enabled, host.disabled_reason) == (False, "new memory")
    assert (await client.hosts.enable("node-1")).enabled


async def test_a_quota_change_keeps_the_other_limits(client: Client, catalogue: Catalogue) -> None:
    before = await client.quotas.show()
    after = await client.quotas.set(vcpus=8)
    assert after == before.model_copy(update={"vcpus": 8})


async def test_what_the_worker_raises_is_typed(client: Client, catalogue: Catalogue) -> None:
    with pytest.raises(NotFound) as caught:
        await client.flavors.show("huge")
    assert (caught.value.detail.field, caught.value.detail.value) == ("flavor", "huge")
    with pytest.raises(OperationFailed, match="RuntimeError: the database is on fire"):
        await client.images.list()


async def test_the_client_refuses_early(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="cidr"):
        await client.networks.create("private", cidr="10.0.0.1/24")
    with pytest.raises(InvalidRequest, match="hostler:evacuate"):
        await client.servers.set("web", {"hostler:evacuate": "perhaps", "role": None})


async def test_a_server_is_found_by_its_name(client: Client, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("db"), server("db")]

    assert (await client.servers.show("web")).id == catalogue.servers[0].id
    assert (await client.servers.show(catalogue.servers[1].id.upper())).id == catalogue.servers[1].id
    with pytest.raises(Conflict) as caught:
        await client.servers.show("db")
    assert all(s.id in str(caught.value) for s in catalogue.servers[1:])
    with pytest.raises(NotFound):
        await client.servers.show("mail")


async def test_metadata_are_changed_key_by_key(client: Client, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("db")]

    assert (await client.servers.set("web", {"role": "web", "rack": "7"})).metadata == {"role": "web", "rack": "7"}
    changed = await client.servers.set(catalogue.servers[0].id.upper(), {"role": None, "rack": "8"})

    assert changed.metadata == (await client.servers.show("web")).metadata == {"rack": "8"}
    assert (await client.servers.show("db")).metadata == {}


async def test_metadata_that_are_not_there_are_not_taken_away(client: Client, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web")]
    await client.servers.set("web", {"role": "web", "rack": "7"})

    with pytest.raises(NotFound, match="server web has no property 'tier'") as caught:
        await client.servers.set("web", {"role": None, "tier": None})

    assert (caught.value.detail.field, caught.value.detail.value) == ("metadata", "tier")
    assert caught.value.remedy == "it has: rack, role"
    assert (await client.servers.show("web")).metadata == {"role": "web", "rack": "7"}


async def test_moves_are_listed_as_many_as_are_wanted_in_as_many_parts_as_it_takes(
    client: Client, catalogue: Catalogue
) -> None:
    move = ServerMigration(**MOVED.model_dump(), server_id=HOST_ID, server_name="web", project="default")
    catalogue.migrations = [move.model_copy(update={"id": str(number)}) for number in range(MAX_MIGRATIONS + 7)]
    assert len(catalogue.migrations) < LIMIT

    assert await client.migrations.list() == catalogue.migrations
    assert [(one.limit, one.after) for one in catalogue.asked_migrations] == [
        (MAX_MIGRATIONS, None),
        (MAX_MIGRATIONS, str(MAX_MIGRATIONS - 1)),
    ]
    assert await client.migrations.list(limit=MAX_MIGRATIONS + 2) == catalogue.migrations[:-5]
    catalogue.asked_migrations.clear()
    await client.migrations.list(host="node-1", server="web", kind="resize", status="error", all_projects=True, limit=1)
    assert catalogue.asked_migrations == [
        MigrationFilter(
            all_projects=True,
            host="node-1",
            server="web",
            kind=MigrationKind.RESIZE,
            status=MigrationStatus.ERROR,
            limit=1,
        )
    ]


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("status", "failed", "use one of: migrating, finished, confirmed, reverted, completed, error"),
        ("kind", "cold", "use one of: resize, migration, live-migration, evacuation"),
        ("limit", 0, "use a number in that range"),
        ("host", "", "choose another one"),
        ("server", "", "choose another one"),
    ],
)
async def test_a_list_of_moves_that_makes_no_sense_is_refused_before_anybody_is_asked(
    client: Client, field: str, value: object, remedy: str
) -> None:
    wanted: dict[str, Any] = {field: value}
    with pytest.raises(InvalidRequest, match=field) as caught:
        await client.migrations.list(**wanted)
    assert (caught.value.detail.field, caught.value.remedy) == (field, remedy)
    assert str(value) in str(caught.value.detail.value)


async def test_the_console_is_read_from_the_host(client: Client, catalogue: Catalogue) -> None:
    web, failed = server("web"), server("failed", VmState.ERROR)
    elsewhere = server("lost").model_copy(update={"host_id": str(uuid4()), "host": "node-9"})
    catalogue.servers = [web, failed, elsewhere]
    assert web.host_id == HOST_ID

    assert await client.servers.console_log("web") == f"login of {web.id}\n"
    with pytest.raises(InvalidState):
        await client.servers.console_log("failed")
    with pytest.raises(Unavailable, match="no worker of host node-9 answered within 1 s"):
        await client.servers.console_log("lost")


async def test_an_import_tells_how_far_it_is(client: Client, catalogue: Catalogue) -> None:
    notes: list[str] = []
    image = await client.images.create("demo", "/srv/demo.qcow2", on_note=notes.append)
    assert image.name == "demo"
    assert notes
    assert notes == sorted(set(notes))


async def test_a_volume_that_finds_no_room(client: Client, catalogue: Catalogue) -> None:
    assert (await client.volumes.create("data", size_gib=5)).size_gib == 5
    with pytest.raises(BuildFailed, match="no host has the room"):
        await client.volumes.create("data", size_gib=500)


async def test_nobody_answers(client: Client) -> None:
    with pytest.raises(Unavailable, match="no control worker answered within 1 s") as call:
        await client.flavors.list()
    assert call.value.remedy == "start one: hostler worker control"
    with pytest.raises(Unavailable, match="no control worker"):
        await client.servers.boot("web", flavor="tiny", image="demo")
    with pytest.raises(Unavailable, match="no control worker"):
        await client.volumes.create("data", size_gib=5)


async def test_a_boot_that_nobody_answered_is_joined_later(
    client: Client, temporal_server: str, namespace: str
) -> None:
    server_id = str(uuid4())
    with pytest.raises(Unavailable):
        await client.servers.boot("web", flavor="tiny", image="demo", server_id=server_id)
    async with cloud(temporal_server, namespace):
        operation = await client.servers.boot("web", flavor="tiny", image="demo", server_id=server_id)
        assert (await operation.result()).id == server_id


async def test_temporal_is_not_there() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as caught:
        await Client.connect(address="127.0.0.1:1")
    assert "hostler dev" in str(caught.value.remedy)


async def test_the_namespace_is_not_there(temporal_server: str) -> None:
    client = await Client.connect(address=temporal_server, namespace="nowhere")
    for call in (client.flavors.list(), client.servers.boot("web", flavor="tiny", image="demo")):
        with pytest.raises(HostlerError, match="nowhere") as caught:
            await call
        assert isinstance(caught.value, Unavailable)
