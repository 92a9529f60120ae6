"""Operations that were terminated by force: the audit says what to do, and doing it brings the server back."""

from datetime import timedelta

import pytest

from activities.interfaces.hosts import OwedWork
from hostler.client import Operation
from hostler.contract.audit import FindingKind
from hostler.contract.errors import InvalidState, NotFound, OperationFailed, ServerBusy, Unavailable
from hostler.contract.servers import NEVER, Server
from hostler.contract.states import PowerState, VmState
from hostler.settings import OperationSettings
from models import OwedWork as OwedRow
from models import Server as Row
from tests.cloud import LIMIT, Cloud
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_audit import audit
from tests.workflows.test_move import SMALL, add_flavor, content, power_on
from workers.control import nudge_once


@pytest.fixture
async def cloud(start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Two hosts and a larger flavor."""
    return await audited_at_once(start_cloud, monkeypatch)


async def audited_at_once(start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch, hosts: int = 2) -> Cloud:
    """A cloud with a larger flavor, whose audit need not wait until a row has not changed for long."""
    monkeypatch.setattr("activities.control.audit.healing.LONG", timedelta(0))
    cloud = await start_cloud(hosts=hosts, operations=OperationSettings(resize_on_same_host=True))
    add_flavor(cloud)
    return cloud


async def cut(cloud: Cloud, operation: Operation, held: object) -> Server:
    """Terminate the operation at the step at which it is held; the server as the audit leaves it."""
    await cloud.temporal.get_workflow_handle(f"server:{operation.server_id}").terminate()
    held.go_on.set()  # type: ignore[attr-defined]  # of the stage
    await audit(cloud)
    return await cloud.client.servers.show(operation.server_id)


async def cut_at(cloud: Cloud, step: str, ask: object) -> Server:
    held = cloud.stage.hold(step)
    operation = await ask  # type: ignore[misc]  # an operation's coroutine
    await held.reached.wait()
    return await cut(cloud, operation, held)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["set_aside_claim", "receive_disks", "spawn", "resume_guest"])
async def test_a_migration_is_taken_back_by_a_revert_and_by_nothing_else(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()

    shown = await cut_at(cloud, step, cloud.client.servers.migrate(server.id))

    assert shown.status == "ERROR"
    assert shown.fault is not None
    assert shown.fault.error.remedy is not None
    assert "hostler server revert" in shown.fault.error.remedy
    for ask in (cloud.client.servers.rebuild, cloud.client.servers.stop):
        with pytest.raises(InvalidState, match="cut short"):
            await ask(server.id)
    reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (reverted.status, reverted.host, reverted.migration) == ("ACTIVE", "sim-1", None)
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    await audit(cloud)
    assert await cloud.world() == before


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("step", "afterwards", "host"),
    [
        ("prepare_incoming", False, "sim-1"),
        ("migrate_guest", False, "sim-1"),
        ("migrate_guest", True, "sim-2"),
        ("destroy_guest", False, "sim-2"),
    ],
)
async def test_a_live_migration_is_ended_where_its_guest_is(
    cloud: Cloud, step: str, afterwards: bool, host: str
) -> None:
    server = await cloud.booted(host="sim-1")
    held = cloud.stage.hold(step, afterwards=afterwards)
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    shown = await cut(cloud, operation, held)
    await eventually(lambda: not cloud.stage.under_way)

    assert shown.status == "ERROR"
    ended = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (ended.status, ended.migration) == ("ACTIVE", None)
    if (step, afterwards) != ("migrate_guest", False):  # else the step went on when it was let go
        assert ended.host == host
    assert ended.host is not None
    other = "sim-1" if ended.host == "sim-2" else "sim-2"
    assert await power_on(cloud, ended.host, server) is PowerState.RUNNING
    assert await power_on(cloud, other, server) is PowerState.NOSTATE
    await audit(cloud)
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == world.bound_ports == {(ended.host, server.id)}


@pytest.mark.parametrize("source_is_lost", [False, True])
async def test_a_live_migration_that_lacked_its_last_step_is_not_taken_from_its_only_copy(
    cloud: Cloud, source_is_lost: bool
) -> None:
    server = await cloud.booted(host="sim-1")
    shown = await cut_at(cloud, "drop_claim", cloud.client.servers.live_migrate(server.id))
    await cloud.machine("sim-2").hypervisor.stop(server.id, timedelta(0), lambda said: None)
    if source_is_lost:
        await cloud.stop_host("sim-1")
        cloud.alive.discard(cloud.machine("sim-1").id)
        await cloud.client.hosts.declare_down("sim-1", "it burns")

    assert shown.status == "ERROR"
    ended = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)

    assert (ended.status, ended.host) == ("SHUTOFF", "sim-2")
    assert (await cloud.world()).guests == {("sim-2", server.id)}


async def test_a_live_migration_whose_source_is_gone_for_good_can_be_evacuated(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    shown = await cut_at(cloud, "prepare_incoming", cloud.client.servers.live_migrate(server.id))
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "it burns")

    assert shown.status == "ERROR"
    await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    evacuated = await (await cloud.client.servers.evacuate(server.id)).result(LIMIT)

    assert (evacuated.status, evacuated.host) == ("ACTIVE", "sim-2")


async def test_a_revert_on_the_same_host_is_repeated_and_not_confirmed(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)
    await cloud.client.hosts.disable("sim-2")
    await (await cloud.client.servers.resize(server.id, SMALL)).result(LIMIT)

    shown = await cut_at(cloud, "start_guest", cloud.client.servers.revert_resize(server.id))

    assert shown.status == "ERROR"
    with pytest.raises(InvalidState):
        await cloud.client.servers.confirm_resize(server.id)
    reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (reverted.status, reverted.host, reverted.flavor) == ("ACTIVE", "sim-1", server.flavor)
    assert content(cloud, "sim-1", server) == disk


async def test_a_rebuild_is_in_error_and_can_be_rebuilt(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")

    shown = await cut_at(cloud, "resume_guest", cloud.client.servers.rebuild(server.id))

    assert shown.status == "ERROR"
    assert (await (await cloud.client.servers.rebuild(server.id)).result(LIMIT)).status == "ACTIVE"
    assert not (await cloud.world()).formers


@pytest.mark.parametrize("running", [True, False])
async def test_a_rebuilt_guest_that_is_taken_as_it_is_has_no_former_one_any_more(cloud: Cloud, running: bool) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, "resume_guest", cloud.client.servers.rebuild(server.id))
    new = content(cloud, "sim-1", server)
    assert (await cloud.world()).formers

    ask = cloud.client.servers.reboot(server.id, hard=True) if running else cloud.client.servers.stop(server.id)
    await (await ask).result(LIMIT)
    with pytest.raises(ServerBusy, match="sim-1 has yet to do drop_former_guest"):
        await cloud.client.servers.rebuild(server.id)
    await nudge_once(cloud.asking, cloud.database, lambda: frozenset(cloud.alive))
    await cloud.registered("sim-1")

    world = await cloud.world()
    assert (world.formers, world.owed) == (frozenset(), frozenset())
    assert content(cloud, "sim-1", server) == new
    assert await power_on(cloud, "sim-1", server) is (PowerState.RUNNING if running else PowerState.SHUTDOWN)
    assert (await audit(cloud)).findings == []
    migrated = await (await cloud.client.servers.migrate(server.id)).result(LIMIT)
    assert migrated.status == "VERIFY_RESIZE"


async def test_a_rebuild_without_a_new_guest_keeps_the_former_one_whatever_is_asked(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)
    await cut_at(cloud, "spawn", cloud.client.servers.rebuild(server.id))
    await eventually(lambda: not cloud.stage.under_way)
    await cloud.machine("sim-1").hypervisor.destroy(server.id)  # the step went on when it was let go

    for ask in (cloud.client.servers.stop(server.id), cloud.client.servers.reboot(server.id, hard=True)):
        assert isinstance(await cloud.failure(await ask), NotFound)

    world = await cloud.world()
    assert not world.owed
    assert world.formers == {("sim-1", server.id)}
    await cloud.machine("sim-1").hypervisor.bring_back(server.id)
    assert content(cloud, "sim-1", server) == disk


@pytest.mark.parametrize("from_shelf", [True, False])
async def test_a_server_that_was_giving_its_host_up_is_shelved_and_can_go_on(cloud: Cloud, from_shelf: bool) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)
    if from_shelf:
        await (await cloud.client.servers.shelve(server.id, offload_after=NEVER)).result(LIMIT)
        shown = await cut_at(cloud, "drop_claim", cloud.client.servers.shelve_offload(server.id))
    else:
        shown = await cut_at(cloud, "drop_claim", cloud.client.servers.shelve(server.id))

    assert shown.status == "SHELVED"
    assert shown.shelved_image_id is not None
    await (await cloud.client.servers.shelve_offload(server.id)).result(LIMIT)
    back = await (await cloud.client.servers.unshelve(server.id, host="sim-2")).result(LIMIT)
    assert back.status == "ACTIVE"
    assert content(cloud, "sim-2", server) == disk


async def test_an_unshelve_that_ran_already_is_not_run_a_second_time_elsewhere(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.shelve(server.id)).result(LIMIT)

    unshelve = cloud.client.servers.unshelve(server.id, host="sim-1")
    shown = await cut_at(cloud, "resume_guest", unshelve)

    assert shown.status == "SHELVED_OFFLOADED"
    await (await cloud.client.servers.unshelve(server.id, host="sim-2")).result(LIMIT)
    assert await power_on(cloud, "sim-1", server) is PowerState.NOSTATE
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING


async def test_nor_is_it_when_another_that_could_not_ask_that_host_failed_before(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.shelve(server.id)).result(LIMIT)
    await cut_at(cloud, "resume_guest", cloud.client.servers.unshelve(server.id, host="sim-1"))
    cloud.stage.fail("destroy_guest", Unavailable("libvirt does not answer"), times=3)
    await cloud.failure(await cloud.client.servers.unshelve(server.id, host="sim-2"))
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING

    await (await cloud.client.servers.unshelve(server.id, host="sim-2")).result(LIMIT)

    assert await power_on(cloud, "sim-1", server) is PowerState.NOSTATE
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING


async def test_what_a_host_that_was_declared_down_has_of_one_is_removed_when_it_is_back(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.shelve(server.id)).result(LIMIT)
    await cut_at(cloud, "resume_guest", cloud.client.servers.unshelve(server.id, host="sim-1"))
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "its power supply is on fire")

    back = await (await cloud.client.servers.unshelve(server.id)).result(LIMIT)

    assert (back.status, back.host) == ("ACTIVE", "sim-2")
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert world.guests == world.claims == world.allocations == {("sim-2", server.id)}


async def test_a_migration_whose_revert_failed_is_not_forgotten_by_the_next_one(cloud: Cloud) -> None:
    """Its guest may be running on the host to which it went."""
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    held = cloud.stage.hold("resume_guest", afterwards=True)
    operation = await cloud.client.servers.migrate(server.id)
    await held.reached.wait()
    assert (await cut(cloud, operation, held)).status == "ERROR"
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING
    cloud.stage.fail("stop_guest", OperationFailed("no"))
    await cloud.failure(await cloud.client.servers.revert_resize(server.id))

    await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)

    assert await power_on(cloud, "sim-2", server) is PowerState.NOSTATE
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    assert await cloud.world() == before


# On a host that is down.


async def lost(cloud: Cloud, name: str) -> None:
    """The host's power fails: its guests are off, and its worker is away."""
    machine = cloud.machine(name)
    for file in (machine.directory / "guests").glob("*.json"):
        await machine.hypervisor.stop(file.stem, timedelta(0), lambda _: None)
    await cloud.stop_host(name)
    cloud.alive.discard(machine.id)


async def dies(cloud: Cloud, name: str) -> None:
    """The host's power fails, and it is declared down."""
    await lost(cloud, name)
    await cloud.client.hosts.declare_down(name, "it burns")


async def cut_with(cloud: Cloud, name: str, step: str, ask: object) -> Server:
    """Terminate the operation at this step, while the host dies; the server as the audit leaves it."""
    held = cloud.stage.hold(step)
    operation = await ask  # type: ignore[misc]  # an operation's coroutine
    await held.reached.wait()
    await cloud.temporal.get_workflow_handle(f"server:{operation.server_id}").terminate()
    await dies(cloud, name)
    held.go_on.set()
    report = await audit(cloud)
    assert FindingKind.LOST_OPERATION in {one.kind for one in report.findings if one.healed}
    return await cloud.client.servers.show(operation.server_id)


async def evacuated(cloud: Cloud, server: Server) -> Server:
    return await (await cloud.client.servers.evacuate(server.id)).result(LIMIT)


async def comes_back(cloud: Cloud, name: str) -> None:
    """And has done what it owed."""
    cloud.alive.add(cloud.machine(name).id)
    await cloud.start_host(name)


async def is_on_alone(cloud: Cloud, host: str, server: Server) -> None:
    """Nothing of the server is elsewhere, and the audit has nothing to say."""
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == world.bound_ports == {(host, server.id)}
    assert not world.owed
    assert not world.formers
    assert (await audit(cloud)).findings == []


def remedy(shown: Server) -> str:
    """What the fault tells the owner to do."""
    assert shown.fault is not None
    return shown.fault.error.remedy or ""


@pytest.mark.parametrize(
    ("step", "off", "status"),
    [("reboot_guest", False, "ACTIVE"), ("stop_guest", False, "ACTIVE"), ("start_guest", True, "SHUTOFF")],
)
async def test_what_was_switched_on_a_host_that_is_down_is_what_it_was_and_can_be_evacuated(
    cloud: Cloud, step: str, off: bool, status: str
) -> None:
    server = await cloud.booted(host="sim-1")
    if off:
        await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    servers = cloud.client.servers
    ask = {"reboot_guest": servers.reboot, "stop_guest": servers.stop, "start_guest": servers.start}[step]

    shown = await cut_with(cloud, "sim-1", step, ask(server.id))

    assert (shown.status, shown.task_state, shown.power_state) == (status, None, PowerState.SHUTDOWN)
    assert (shown.host, shown.fault) == ("sim-1", None)
    there = await evacuated(cloud, server)
    assert (there.status, there.host) == (status, "sim-2")
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_a_host_that_failed_gives_up_what_was_held_there_too(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_with(cloud, "sim-1", "stop_guest", cloud.client.servers.stop(server.id))

    result = await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)

    assert [(one.name, one.to) for one in result.moved] == [(server.name, "sim-2")]


async def test_a_host_that_is_back_without_having_been_evacuated_runs_it_as_before(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_with(cloud, "sim-1", "reboot_guest", cloud.client.servers.reboot(server.id))

    await comes_back(cloud, "sim-1")

    await (await cloud.client.servers.reboot(server.id, hard=True)).result(LIMIT)
    await is_on_alone(cloud, "sim-1", server)


@pytest.mark.parametrize("back", [False, True])
async def test_a_rebuild_on_a_host_that_is_down_ends_by_an_evacuation_or_a_rebuild(cloud: Cloud, back: bool) -> None:
    server = await cloud.booted(host="sim-1")

    shown = await cut_with(cloud, "sim-1", "resume_guest", cloud.client.servers.rebuild(server.id))

    assert shown.status == "ERROR"
    assert f"hostler server evacuate {server.id}" in remedy(shown)
    assert f"hostler server rebuild {server.id}" in remedy(shown)
    if back:
        await comes_back(cloud, "sim-1")
        assert (await (await cloud.client.servers.rebuild(server.id)).result(LIMIT)).status == "ACTIVE"
        await is_on_alone(cloud, "sim-1", server)
        return
    assert (await evacuated(cloud, server)).status == "ACTIVE"
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_a_shelve_that_has_no_image_yet_when_its_host_is_down_has_not_begun(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")

    shown = await cut_with(cloud, "sim-1", "snapshot_guest", cloud.client.servers.shelve(server.id))

    assert (shown.status, shown.shelved_image_id) == ("ACTIVE", None)
    assert (await evacuated(cloud, server)).host == "sim-2"


@pytest.mark.parametrize("step", ["destroy_guest", "drop_claim"])
async def test_a_shelve_that_has_its_image_when_its_host_is_down_is_shelved(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)

    shown = await cut_with(cloud, "sim-1", step, cloud.client.servers.shelve(server.id))

    assert shown.status == "SHELVED"
    assert shown.shelved_image_id is not None
    assert shown.shelved_at is not None
    await (await cloud.client.servers.shelve_offload(server.id)).result(LIMIT)
    back = await (await cloud.client.servers.unshelve(server.id)).result(LIMIT)
    assert (back.status, back.host) == ("ACTIVE", "sim-2")
    assert content(cloud, "sim-2", server) == disk
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_an_unshelve_on_a_host_that_is_down_is_repeated_elsewhere(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.shelve(server.id, offload_after=NEVER)).result(LIMIT)

    shown = await cut_with(cloud, "sim-1", "start_guest", cloud.client.servers.unshelve(server.id))

    assert shown.status == "SHELVED"
    await (await cloud.client.servers.shelve_offload(server.id)).result(LIMIT)
    assert (await (await cloud.client.servers.unshelve(server.id)).result(LIMIT)).host == "sim-2"
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_a_migration_whose_source_is_down_waits_for_it_and_is_taken_back(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)

    shown = await cut_with(cloud, "sim-1", "offer_disks", cloud.client.servers.migrate(server.id))

    assert shown.status == "ERROR"
    assert remedy(shown).startswith("when its host is back")
    assert f"hostler server revert {server.id}" in remedy(shown)
    await comes_back(cloud, "sim-1")
    reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (reverted.status, reverted.host) == ("ACTIVE", "sim-1")
    assert content(cloud, "sim-1", server) == disk
    await is_on_alone(cloud, "sim-1", server)


async def test_a_live_migration_whose_source_is_down_is_ended_and_can_be_evacuated(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")

    shown = await cut_with(cloud, "sim-1", "prepare_incoming", cloud.client.servers.live_migrate(server.id))

    assert shown.status == "ERROR"
    assert f"hostler server revert {server.id}" in remedy(shown)
    await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (await evacuated(cloud, server)).host == "sim-2"
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


@pytest.mark.parametrize(("ask", "status"), [("confirm_resize", "VERIFY_RESIZE"), ("revert_resize", "ERROR")])
async def test_the_end_of_a_move_whose_target_is_down_can_be_a_revert(cloud: Cloud, ask: str, status: str) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)
    await (await cloud.client.servers.migrate(server.id)).result(LIMIT)

    shown = await cut_with(cloud, "sim-2", "expect_guest", getattr(cloud.client.servers, ask)(server.id))

    assert (shown.status, shown.host) == (status, "sim-2")
    reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (reverted.status, reverted.host) == ("ACTIVE", "sim-1")
    assert content(cloud, "sim-1", server) == disk
    await comes_back(cloud, "sim-2")
    await is_on_alone(cloud, "sim-1", server)


async def test_a_revert_that_had_brought_the_former_guest_back_is_not_confirmed_when_the_target_is_down(
    cloud: Cloud,
) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.migrate(server.id)).result(LIMIT)

    shown = await cut_with(cloud, "sim-2", "start_guest", cloud.client.servers.revert_resize(server.id))

    assert shown.status == "ERROR"
    assert f"hostler server revert {server.id}" in remedy(shown)
    with pytest.raises(InvalidState):
        await cloud.client.servers.confirm_resize(server.id)
    reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (reverted.status, reverted.host) == ("ACTIVE", "sim-1")
    await comes_back(cloud, "sim-2")
    await is_on_alone(cloud, "sim-1", server)


async def test_a_delete_on_a_host_that_is_down_is_asked_for_again(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted(host="sim-1")

    shown = await cut_with(cloud, "sim-1", "destroy_guest", cloud.client.servers.delete(server.id))

    assert shown.status == "ERROR"
    assert remedy(shown) == f"delete it again: hostler server delete {server.id}"
    assert (await cloud.deleted(server.id)).status == "DELETED"
    await comes_back(cloud, "sim-1")
    assert (await cloud.world()).besides(server.id) == before.besides(server.id)


# What hosts owe.


def owe(cloud: Cloud, host: str, server: Server, activity: str) -> None:
    work = OwedWork(
        id=server.id,
        host_id=cloud.machine(host).id,
        server_id=server.id,
        activity=activity,
        argument={"server_id": server.id},
        reason="a test",
    )
    cloud.add(OwedRow(**work.model_dump()))


async def test_what_its_host_owes_of_a_server_comes_before_the_next_operation(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    owe(cloud, "sim-1", server, "drop_former_guest")

    with pytest.raises(ServerBusy, match="sim-1 has yet to do drop_former_guest"):
        await cloud.client.servers.rebuild(server.id)

    assert await cloud.client.servers.show(server.id) == server
    assert (await cloud.deleted(server.id)).status == "DELETED"


async def test_a_server_in_error_is_not_started_while_another_host_may_run_it(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    with cloud.database.write() as session:
        session.get_one(Row, server.id).vm_state = VmState.ERROR
    owe(cloud, "sim-2", server, "destroy_guest")

    for ask in (cloud.client.servers.stop, cloud.client.servers.rebuild):
        with pytest.raises(InvalidState, match="may be running on host sim-2"):
            await ask(server.id)
    with pytest.raises(InvalidState, match="may be running on host sim-2"):
        await cloud.client.servers.reboot(server.id, hard=True)


async def test_an_owed_start_that_cannot_be_done_is_given_up_and_what_is_behind_it_is_done(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    await cloud.deleted(server.id)
    owe(cloud, "sim-1", server, "start_guest")
    await cloud.start_host("sim-1")

    world = await cloud.world()
    assert not world.owed
    assert not world.guests


# On a source that is down.


async def resize_is_cut(cloud: Cloud, server: Server, step: str, target: str) -> Server:
    """From sim-1; the server as the audit leaves it."""
    other = "sim-1" if target == "sim-2" else "sim-2"
    await cloud.client.hosts.disable(other)
    shown = await cut_at(cloud, step, cloud.client.servers.resize(server.id, SMALL))
    await cloud.client.hosts.enable(other)
    return shown


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["set_aside_claim", "spawn", "resume_guest"])
@pytest.mark.parametrize("target", ["sim-1", "sim-2"])
async def test_a_resize_whose_source_is_down_is_evacuated_at_its_former_size(
    cloud: Cloud, step: str, target: str
) -> None:
    server = await cloud.booted(host="sim-1")
    quota = (await cloud.world()).quota
    shown = await resize_is_cut(cloud, server, step, target)
    assert f"hostler server evacuate {server.id}" in remedy(shown)
    with pytest.raises(InvalidState, match="cut short"):
        await cloud.client.servers.evacuate(server.id)
    await dies(cloud, "sim-1")

    there = await evacuated(cloud, server)

    assert (there.status, there.host, there.flavor, there.migration) == ("ACTIVE", "sim-2", server.flavor, None)
    assert (await cloud.world()).quota == quota
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_a_server_that_was_off_before_its_migration_stays_off_when_it_is_evacuated(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    await cut_at(cloud, "spawn", cloud.client.servers.migrate(server.id))
    await dies(cloud, "sim-1")

    assert (await evacuated(cloud, server)).status == "SHUTOFF"


@pytest.mark.parametrize("target", ["sim-1", "sim-2"])
async def test_where_no_host_takes_it_its_source_has_its_former_guest_in_its_place(cloud: Cloud, target: str) -> None:
    server = await cloud.booted(host="sim-1")
    before, disk = await cloud.world(), content(cloud, "sim-1", server)
    await resize_is_cut(cloud, server, "resume_guest", target)
    await dies(cloud, "sim-1")
    await cloud.client.hosts.disable("sim-2")
    await cloud.failure(await cloud.client.servers.evacuate(server.id))

    await comes_back(cloud, "sim-1")

    shown = await (await cloud.client.servers.reboot(server.id, hard=True)).result(LIMIT)
    assert (shown.status, shown.host, shown.flavor) == ("ACTIVE", "sim-1", server.flavor)
    assert content(cloud, "sim-1", server) == disk
    await is_on_alone(cloud, "sim-1", server)
    assert (await cloud.world()).quota == before.quota


async def test_where_the_target_is_silent_too_it_is_not_built_a_second_time(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, "resume_guest", cloud.client.servers.migrate(server.id, host="sim-2"))
    await dies(cloud, "sim-1")
    await cloud.stop_host("sim-2")
    cloud.alive.discard(cloud.machine("sim-2").id)

    failure = await cloud.failure(await cloud.client.servers.evacuate(server.id))

    assert "may be running on host sim-2" in str(failure)
    with pytest.raises(InvalidState, match="may be running on host sim-2"):
        await cloud.client.servers.evacuate(server.id)
    await comes_back(cloud, "sim-2")
    assert (await evacuated(cloud, server)).host == "sim-2"
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_a_target_that_was_declared_down_is_not_waited_for_and_removes_what_it_has(
    start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await audited_at_once(start_cloud, monkeypatch, hosts=3)
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, "resume_guest", cloud.client.servers.migrate(server.id, host="sim-2"))
    await dies(cloud, "sim-1")
    await dies(cloud, "sim-2")

    assert (await evacuated(cloud, server)).host == "sim-3"

    await comes_back(cloud, "sim-1")
    await comes_back(cloud, "sim-2")
    await is_on_alone(cloud, "sim-3", server)


async def test_only_a_person_has_a_server_built_anew_of_which_a_host_that_is_up_may_have_the_disks(
    cloud: Cloud,
) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, "resume_guest", cloud.client.servers.migrate(server.id, host="sim-2"))
    await dies(cloud, "sim-1")

    result = await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)

    assert "host sim-2 was cut short, which may have its disks" in (result.skipped[0].reason or "")
    assert ("sim-2", server.id) in (await cloud.world()).guests
