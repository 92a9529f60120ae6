"""A host that comes back says what it holds, and removes what is confirmed to be gone, and nothing else.

And what it owes it does first; a server follows its guest that was switched on or off so.
"""

import asyncio
from datetime import timedelta

import pytest
from sqlmodel import select

from hostler.contract.errors import NoValidHost, Unavailable
from hostler.contract.guests import GuestSpec
from hostler.contract.names import host_workflow_id
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from models import OwedWork
from tests.cloud import LIMIT, Cloud, breaks
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_evacuate import nudging, owe, settled
from tests.workflows.test_move import FOR_GOOD, power_on
from workers.control import nudge_once

SOON = timedelta(milliseconds=200)
UNKNOWN = "5f0f1f7e-7a30-4c55-8f0e-3a5b0f4c0a01"


def forget_what_is_owed(cloud: Cloud) -> None:
    """As a database that was restored from a backup has."""
    with cloud.database.write() as session:
        for work in session.exec(select(OwedWork)).all():
            session.delete(work)


async def left_behind(cloud: Cloud) -> str:
    """A server that was deleted while its host was away, which the host will not be told of."""
    server = await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    await cloud.deleted(server.id)
    forget_what_is_owed(cloud)
    return server.id


async def plant_guest(cloud: Cloud, server_id: str) -> None:
    """A guest on sim-1 that the control plane has never heard of."""
    spec = GuestSpec(
        server_id=server_id, name="x", project="default", flavor="tiny", vcpus=1, ram_mib=128, disks=[], ports=[]
    )
    await cloud.machine("sim-1").hypervisor.spawn(spec, None, lambda _: None)


async def owes(cloud: Cloud, host: str) -> list[tuple[str, str]]:
    """What the host owes, and why."""
    return [(work.activity, work.reason) for work in (await cloud.client.hosts.show(host)).owes]


async def test_it_removes_what_is_left_of_deleted_servers(cloud: Cloud) -> None:
    before = await cloud.world()
    server_id = await left_behind(cloud)
    left = await cloud.world()
    assert left.guests == left.claims == {("sim-1", server_id)}
    assert left.bound_ports == {("sim-1", server_id)}

    await cloud.start_host("sim-1")

    assert await cloud.world() == before


async def test_its_own_servers_stay(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    world = await cloud.world()
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    assert await cloud.world() == world
    assert (await cloud.client.servers.show(server.id)).status == "ACTIVE"


async def test_what_nobody_has_heard_of_stays_and_is_said(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    await plant_guest(cloud, UNKNOWN)
    await cloud.stop_host("sim-1")

    await cloud.start_host("sim-1")

    assert (await cloud.world()).guests == {("sim-1", UNKNOWN)}
    assert await owes(cloud, "sim-1") == []
    assert UNKNOWN in caplog.text
    assert "left alone" in caplog.text


async def test_a_guest_that_another_host_spawned_stays(cloud: Cloud) -> None:
    """Nor does it help that its server is deleted: a copy of somebody's disk is not this host's to remove."""
    server_id = await left_behind(cloud)
    file = cloud.machine("sim-1").directory / "guests" / f"{server_id}.json"
    file.write_text(file.read_text().replace(cloud.machine("sim-1").id, cloud.machine("sim-2").id))

    await cloud.start_host("sim-1")

    assert (await cloud.world()).guests == {("sim-1", server_id)}


async def test_without_an_answer_nothing_is_removed_and_the_host_gets_nothing(cloud: Cloud) -> None:
    server_id = await left_behind(cloud)
    cloud.stage.fail("list_holdings", Unavailable("libvirt does not answer"), times=2)

    await cloud.start_host("sim-1")

    assert (await cloud.world()).guests == {("sim-1", server_id)}
    [(activity, reason)] = await owes(cloud, "sim-1")
    assert activity == "list_holdings"
    assert "libvirt does not answer" in reason
    assert isinstance(refused := await cloud.failure(await cloud.boot(host="sim-1")), NoValidHost)
    assert "waiting for the clean-up" in str(refused)


async def test_it_is_asked_again_and_then_removes_it(cloud: Cloud) -> None:
    before = await cloud.world()
    await left_behind(cloud)
    cloud.stage.fail("list_holdings", Unavailable("libvirt does not answer"), times=2)
    await cloud.start_host("sim-1")

    await settled(cloud)
    assert cloud.stage.names().count("destroy_guest") == 1
    assert await cloud.world() == before


def owing(cloud: Cloud) -> bool:
    """Whether any host owes anything."""
    with cloud.database.read() as session:
        return session.exec(select(OwedWork)).first() is not None


async def test_it_gets_no_server_before_it_has_said_what_it_holds(cloud: Cloud) -> None:
    await cloud.stop_host("sim-1")
    held = cloud.stage.hold("list_holdings")
    await cloud.start_host_without_waiting("sim-1")
    await held.reached.wait()
    assert await owes(cloud, "sim-1") == [("list_holdings", "it has registered and not yet said what it holds")]
    assert (await cloud.booted()).host == "sim-2"

    held.go_on.set()
    await cloud.registered("sim-1")
    assert (await cloud.booted(host="sim-1")).host == "sim-1"


async def test_owed_work_is_done_before_it_is_asked(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    await cloud.deleted(server.id)
    await cloud.start_host("sim-1")
    host = cloud.machine("sim-1").id
    played = [one.name for one in cloud.stage.played if one.host_id == host]
    assert played[-4:] == ["destroy_guest", "unbind_ports", "drop_claim", "list_holdings"]


async def test_what_it_cannot_do_it_goes_on_owing_with_the_reason_and_the_rest_is_done(start_cloud: StartCloud) -> None:
    cloud = await start_cloud()
    first, second = await cloud.booted(host="sim-1"), await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    for server in (first, second):
        await cloud.deleted(server.id)
    cloud.stage.fail("destroy_guest", Unavailable("the disk is on fire"), times=5)

    await cloud.start_host("sim-1")

    owed = (await cloud.client.hosts.show("sim-1")).owes
    # What builds on it waits with it.
    assert [work.activity for work in owed] == ["destroy_guest", "unbind_ports", "drop_claim"]
    assert {work.server_id for work in owed} == {first.id}
    assert owed[0].reason == "the disk is on fire"
    assert (await cloud.world()).guests == {("sim-1", first.id)}
    assert next(host.owed for host in await cloud.client.hosts.list() if host.name == "sim-1") == 3


async def test_a_host_that_was_only_slow_does_what_it_owes_once_it_is_heard_again(cloud: Cloud) -> None:
    """Its worker never stopped, so it does not register anew."""
    server = await cloud.booted(host="sim-1")
    before = cloud.registered_at("sim-1")
    cloud.stage.fail("destroy_guest", Unavailable("too slow"), times=5)
    await cloud.deleted(server.id)
    assert (await owes(cloud, "sim-1"))[0] == ("destroy_guest", "too slow")

    cloud.alive.discard(cloud.machine("sim-1").id)
    async with nudging(cloud):
        await asyncio.sleep(5 * SOON.total_seconds())
        assert cloud.registered_at("sim-1") == before, "nobody asks a host that is down"
        cloud.alive.add(cloud.machine("sim-1").id)
        await eventually(lambda: not owing(cloud), within=5)

    assert (await cloud.world()).guests == frozenset()


async def test_the_workflow_says_what_was_removed_and_what_not(cloud: Cloud) -> None:
    server_id = await left_behind(cloud)
    await cloud.start_host("sim-1")
    handle = cloud.temporal.get_workflow_handle(host_workflow_id(cloud.machine("sim-1").id))
    types = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert types == [
        *("register_host", "look_at_host", "heal_finding"),
        *("destroy_guest", "unbind_ports", "drop_claim", "finish_healing", "settle_owed"),
    ]
    assert cloud.row(server_id) is not None


async def test_a_server_is_not_left_held_by_an_account_that_a_restart_broke_off(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-2")
    await cloud.stop_host("sim-1")
    await plant_guest(cloud, server.id)
    held = cloud.stage.hold("destroy_guest")
    await cloud.start_host_without_waiting("sim-1")
    await held.reached.wait()
    assert (await cloud.world()).held_servers == {server.id}

    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")

    assert (await cloud.world()).held_servers == frozenset()
    assert (await cloud.world()).guests == {("sim-2", server.id)}
    assert (await (await cloud.client.servers.stop(server.id)).result(LIMIT)).status == "SHUTOFF"


# Guests that owed work switches on or off, on a host whose worker never stopped: to it, what it does itself is no news.


async def test_a_host_that_is_no_longer_up_when_it_has_been_asked_is_not_registered(cloud: Cloud) -> None:
    """It may have been declared down meanwhile, which to register would take back."""
    server = await cloud.booted(host="sim-1")
    owe(cloud, "sim-1", server, "drop_former_guest")
    before = cloud.registered_at("sim-1")
    looks = iter([frozenset(cloud.alive), frozenset[str]()])

    await nudge_once(cloud.asking, cloud.database, lambda: next(looks))

    await asyncio.sleep(SOON.total_seconds())
    assert cloud.registered_at("sim-1") == before


async def unheard(cloud: Cloud, name: str = "sim-1") -> None:
    """The host runs, but is taken for dead, and declared down."""
    cloud.alive.discard(cloud.machine(name).id)
    await cloud.client.hosts.declare_down(name, "no answer")


async def notes(cloud: Cloud, server: Server) -> list[str | None]:
    """What the server's history has of its guest's own doing."""
    found = await cloud.client.servers.events(server.id)
    return [one.step.note for one in found if one.operation == "hypervisor"]


async def off_in_the_end(cloud: Cloud, server: Server) -> None:
    """Return when the host owes nothing: the server says then that its guest is off, once, and can be started."""
    await settled(cloud)
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.power_state) == ("SHUTOFF", PowerState.SHUTDOWN)
    assert await notes(cloud, server) == ["its guest is shutdown, was running: SHUTOFF, was ACTIVE"]
    assert (await (await cloud.client.servers.start(server.id)).result(LIMIT)).status == "ACTIVE"


async def test_a_server_whose_evacuation_failed_is_off_once_its_host_has_stopped_it(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", "spawn")])
    server = await cloud.booted(host="sim-1")
    await unheard(cloud)
    await cloud.failure(await cloud.client.servers.evacuate(server.id))
    assert await cloud.client.servers.show(server.id) == server

    cloud.alive.add(cloud.machine("sim-1").id)

    await off_in_the_end(cloud, server)


async def test_so_is_one_that_its_host_stopped_before_the_evacuation_failed(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", "spawn")])
    server = await cloud.booted(host="sim-1")
    await unheard(cloud)
    held = cloud.stage.hold("spawn")
    evacuation = await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()

    cloud.alive.add(cloud.machine("sim-1").id)
    async with nudging(cloud):
        await eventually(lambda: "stop_guest" in cloud.stage.names())
    await cloud.registered("sim-1")
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN
    held.go_on.set()
    await cloud.failure(evacuation)

    await off_in_the_end(cloud, server)


@pytest.mark.parametrize("behind", [(), ("bring_back_claim",)])
async def test_a_server_whose_guest_cannot_be_started_as_it_is_owed_is_off(
    cloud: Cloud, behind: tuple[str, ...]
) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.machine("sim-1").hypervisor.stop(server.id, timedelta(0), lambda _: None)
    for activity in ("start_guest", *behind):
        owe(cloud, "sim-1", server, activity)
    cloud.stage.fail("start_guest", FOR_GOOD)

    await off_in_the_end(cloud, server)


async def test_one_that_can_be_is_what_it_was(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.machine("sim-1").hypervisor.stop(server.id, timedelta(0), lambda _: None)
    owe(cloud, "sim-1", server, "start_guest")

    await settled(cloud)

    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    assert await cloud.client.servers.show(server.id) == server
    assert await notes(cloud, server) == []
