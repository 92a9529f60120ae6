"""Resize and cold migrate: the server is elsewhere or larger, and can go back until that is confirmed."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import select
from temporalio.exceptions import ApplicationError

from hostler.contract.errors import (
    Cancelled,
    InvalidRequest,
    InvalidState,
    NotFound,
    NoValidHost,
    OperationFailed,
    QuotaExceeded,
    RescheduleError,
)
from hostler.contract.servers import OperationName, Server, StepStatus
from hostler.contract.states import PowerState
from hostler.settings import OperationSettings
from models import Allocation, Flavor, now
from tests.cloud import LIMIT, Cloud, World, breaks, refuses
from tests.workflows.conftest import StartCloud
from workflows.revert_resize import STARTS
from workflows.steps import StepDefinition

SMALL, SMALL_ID = "small", "00000000-0000-4000-8000-0000000005a1"
FOR_GOOD = ApplicationError("no answer can be made of it", non_retryable=True)


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """Two hosts, sim-1 before sim-2, and a larger flavor."""
    cloud = await start_cloud()
    add_flavor(cloud)
    return cloud


def add_flavor(cloud: Cloud) -> None:
    cloud.add(Flavor(id=SMALL_ID, name=SMALL, vcpus=2, ram_mib=256, disk_gib=2))


async def migrated(cloud: Cloud, server: Server, **options: object) -> Server:
    return await (await cloud.client.servers.migrate(server.id, **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method


async def resized(cloud: Cloud, server: Server) -> Server:
    return await (await cloud.client.servers.resize(server.id, SMALL)).result(LIMIT)


def rooms(cloud: Cloud, server: Server) -> dict[str, int]:
    """How many processors are allocated to the server, on which hosts."""
    hosts = {machine.id: machine.name for machine in cloud.machines}
    with cloud.database.read() as session:
        found = session.exec(select(Allocation).where(Allocation.server_id == server.id)).all()
        return {hosts[one.host_id]: one.vcpus for one in found}


async def reverted(cloud: Cloud, server: Server) -> Server:
    return await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)


async def confirmed(cloud: Cloud, server: Server) -> Server:
    return await (await cloud.client.servers.confirm_resize(server.id)).result(LIMIT)


async def power_on(cloud: Cloud, host: str, server: Server) -> PowerState:
    return await cloud.machine(host).hypervisor.power_state(server.id)


def impatient(step: StepDefinition[Any, Any]) -> StepDefinition[Any, Any]:
    """The step, of which Temporal gives up on a try after a second."""
    return replace(step, timeout=timedelta(seconds=1), heartbeat=None)


def content(cloud: Cloud, host: str, server: Server) -> str:
    """What the guest's root disk holds."""
    file = cloud.machine(host).directory / "guests" / f"{server.id}.json"
    return file.read_text().partition('"content":"')[2].partition('"')[0]


async def unmoved(cloud: Cloud, server: Server, before: World) -> None:
    """It is where and what it was, with nothing left of the try."""
    shown = await cloud.client.servers.show(server.id)
    assert shown == server
    assert await cloud.world() == before
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING


async def test_a_migrated_server_runs_elsewhere_with_its_disk_and_addresses_and_waits(cloud: Cloud) -> None:
    server = await cloud.booted()
    disk = content(cloud, "sim-1", server)

    moved = await migrated(cloud, server)

    assert (moved.status, moved.host, moved.addresses) == ("VERIFY_RESIZE", "sim-2", server.addresses)
    assert moved.migration is not None
    assert (moved.migration.source, moved.migration.target) == ("sim-1", "sim-2")
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING
    assert await power_on(cloud, "sim-1", server) is PowerState.NOSTATE
    assert content(cloud, "sim-2", server) == disk


async def test_while_it_waits_it_holds_its_room_on_either_host(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)

    world = await cloud.world()

    assert world.allocations == {("sim-1", server.id), ("sim-2", server.id)}
    assert world.claims == {("sim-2", server.id)}
    assert world.formers == {("sim-1", server.id)}


async def test_a_confirmed_migration_leaves_nothing_at_its_source(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)

    shown = await confirmed(cloud, server)

    assert (shown.status, shown.host, shown.migration) == ("ACTIVE", "sim-2", None)
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == {("sim-2", server.id)}
    assert world.bound_ports == {("sim-2", server.id)}
    assert not world.formers


async def test_a_reverted_migration_leaves_all_as_it_was(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    disk = content(cloud, "sim-1", server)
    await migrated(cloud, server)

    assert await reverted(cloud, server) == server

    await unmoved(cloud, server, before)
    assert content(cloud, "sim-1", server) == disk


async def test_a_revert_needs_no_target_that_has_been_declared_down(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await migrated(cloud, server)
    await cloud.stop_host("sim-2")
    cloud.alive.discard(cloud.machine("sim-2").id)
    with pytest.raises(OperationFailed, match="sim-2"):
        await reverted(cloud, server)
    await cloud.client.hosts.declare_down("sim-2", "its power supply is on fire")

    assert (await reverted(cloud, server)).host == "sim-1"

    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING
    await cloud.start_host("sim-2")
    await unmoved(cloud, server, before)


async def test_nor_one_that_died_in_the_middle_of_a_revert(cloud: Cloud) -> None:
    """It owes that the guest runs again, which it must not do any more."""
    server = await cloud.booted()
    before = await cloud.world()
    await migrated(cloud, server)
    held = cloud.stage.hold("stop_guest", afterwards=True)
    operation = await cloud.client.servers.revert_resize(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-2")
    cloud.alive.discard(cloud.machine("sim-2").id)
    held.go_on.set()
    await cloud.failure(operation)
    assert ("sim-2", "start_guest") in (await cloud.world()).owed
    await cloud.client.hosts.declare_down("sim-2", "its power supply is on fire")

    assert (await reverted(cloud, server)).host == "sim-1"

    await cloud.start_host("sim-2")
    await unmoved(cloud, server, before)


async def test_a_resized_server_has_the_new_size_everywhere(cloud: Cloud) -> None:
    server = await cloud.booted()

    moved = await resized(cloud, server)

    assert (moved.status, moved.flavor, moved.devices[0].size_bytes) == ("VERIFY_RESIZE", SMALL, 2 * 2**30)
    assert (await cloud.world()).quota[:3] == (1, 2, 256)
    shown = await confirmed(cloud, server)
    assert (shown.status, shown.flavor) == ("ACTIVE", SMALL)
    assert (await cloud.world()).quota[:3] == (1, 2, 256)


async def test_a_reverted_resize_gives_size_and_quota_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await resized(cloud, server)

    assert await reverted(cloud, server) == server

    await unmoved(cloud, server, before)


async def test_a_stopped_server_stays_off_all_the_way(cloud: Cloud) -> None:
    server = await cloud.booted()
    stopped = await (await cloud.client.servers.stop(server.id)).result(LIMIT)

    await migrated(cloud, server)
    assert await power_on(cloud, "sim-2", server) is PowerState.SHUTDOWN
    assert await reverted(cloud, server) == stopped
    await migrated(cloud, server)
    assert (await confirmed(cloud, server)).status == "SHUTOFF"


async def test_a_resize_may_stay_on_its_host_where_the_settings_allow_it(start_cloud: StartCloud) -> None:
    nowhere = refuses("sim-1", "check_leaving", times=-1)
    cloud = await start_cloud(hosts=1, operations=OperationSettings(resize_on_same_host=True), faults=[nowhere])
    add_flavor(cloud)
    server = await cloud.booted()
    before = await cloud.world()

    assert (await resized(cloud, server)).host == "sim-1"
    assert (await cloud.world()).allocations == {("sim-1", server.id)}
    assert await reverted(cloud, server) == server
    await unmoved(cloud, server, before)
    await resized(cloud, server)
    assert (await confirmed(cloud, server)).flavor == SMALL
    world = await cloud.world()
    assert world.claims == {("sim-1", server.id)}
    assert not world.formers


async def test_a_resize_that_finds_no_other_host_names_the_setting_that_would_let_it_stay(
    start_cloud: StartCloud,
) -> None:
    cloud = await start_cloud(hosts=1)
    add_flavor(cloud)
    server = await cloud.booted()

    failure = await cloud.failure(await cloud.client.servers.resize(server.id, SMALL))

    assert isinstance(failure, NoValidHost)
    assert "operations.resize_on_same_host" in str(failure.remedy)


async def test_a_delete_while_it_waits_removes_both(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    await migrated(cloud, server)

    await cloud.deleted(server.id)

    assert (await cloud.world()).besides(server.id) == before.besides(server.id)


async def test_a_move_confirms_itself_when_its_time_has_come(cloud: Cloud) -> None:
    server = await cloud.booted()

    moved = await migrated(cloud, server, confirm_after=timedelta(seconds=1))

    assert moved.migration is not None
    assert moved.migration.confirms_at is not None
    await cloud.becomes(server.id, "ACTIVE")
    assert not (await cloud.world()).formers


async def test_the_time_of_a_move_runs_on_while_no_control_worker_does(cloud: Cloud) -> None:
    server = await cloud.booted()
    moved = await migrated(cloud, server, confirm_after=timedelta(seconds=5))
    assert moved.migration is not None
    assert moved.migration.confirms_at is not None

    await cloud.stop_control()
    await asyncio.sleep((moved.migration.confirms_at - now()).total_seconds())
    await cloud.start_control()

    await cloud.becomes(server.id, "ACTIVE")
    assert not (await cloud.world()).formers
    history = await cloud.temporal.get_workflow_handle(f"later:{server.id}").fetch_history()
    timers = [event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta() for event in history.events]
    ours = [time for time in timers if timedelta(seconds=3) < time <= timedelta(seconds=5)]
    assert len(ours) == 1, "it did not begin anew"


async def test_what_was_reverted_does_not_confirm_the_next_move(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server, confirm_after=timedelta(seconds=2))
    await reverted(cloud, server)
    await migrated(cloud, server)

    later = cloud.temporal.get_workflow_handle(f"later:{server.id}")
    await later.result()

    assert (await cloud.client.servers.show(server.id)).status == "VERIFY_RESIZE"


# Refusals.


async def test_a_resize_to_the_same_flavor_is_refused(cloud: Cloud) -> None:
    server = await cloud.booted()

    with pytest.raises(InvalidRequest, match="already"):
        await cloud.client.servers.resize(server.id, "tiny")

    assert await cloud.client.servers.show(server.id) == server


async def test_a_disk_does_not_shrink(cloud: Cloud) -> None:
    server = await cloud.booted(flavor=SMALL)

    with pytest.raises(InvalidRequest, match="do not shrink"):
        await cloud.client.servers.resize(server.id, "tiny")

    assert await cloud.client.servers.show(server.id) == server


async def test_a_server_gets_smaller_where_its_disk_does_not(cloud: Cloud) -> None:
    """Fewer processors and less memory; its room and its quota are the larger ones until that is confirmed."""
    cloud.add(Flavor(id=str(uuid4()), name="slim", vcpus=1, ram_mib=128, disk_gib=2))
    server = await cloud.booted(flavor=SMALL)

    slim = await (await cloud.client.servers.resize(server.id, "slim")).result(LIMIT)

    assert (slim.status, slim.flavor, rooms(cloud, server)) == ("VERIFY_RESIZE", "slim", {"sim-1": 2, "sim-2": 1})
    assert (await cloud.client.quotas.show()).used_vcpus == 2
    assert await reverted(cloud, server) == server
    assert rooms(cloud, server) == {"sim-1": 2}
    await (await cloud.client.servers.resize(server.id, "slim")).result(LIMIT)
    assert (await confirmed(cloud, server)).flavor == "slim"
    assert rooms(cloud, server) == {"sim-2": 1}
    assert (await cloud.client.quotas.show()).used_vcpus == 1


async def test_a_resize_over_the_quota_is_refused(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.client.quotas.set(vcpus=1)

    with pytest.raises(QuotaExceeded, match="vcpus"):
        await cloud.client.servers.resize(server.id, SMALL)


async def test_a_migration_to_where_it_is_or_to_nowhere_is_refused(cloud: Cloud) -> None:
    server = await cloud.booted()

    with pytest.raises(InvalidRequest, match="on host sim-1 already"):
        await cloud.client.servers.migrate(server.id, host="sim-1")
    with pytest.raises(NotFound):
        await cloud.client.servers.migrate(server.id, host="sim-9")


async def test_what_was_not_moved_can_be_neither_confirmed_nor_reverted(cloud: Cloud) -> None:
    server = await cloud.booted()

    for ask in (cloud.client.servers.confirm_resize, cloud.client.servers.revert_resize):
        with pytest.raises(InvalidState):
            await ask(server.id)
    assert await cloud.client.servers.show(server.id) == server


async def test_a_server_that_waits_takes_nothing_but_the_decision(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)

    for ask in (cloud.client.servers.stop, cloud.client.servers.reboot, cloud.client.servers.migrate):
        with pytest.raises(InvalidState, match="VERIFY_RESIZE"):
            await ask(server.id)


# Failures.


@pytest.mark.sampled
@pytest.mark.parametrize("call", ["receive_disks", "spawn", "resume", "bind"])
async def test_a_target_that_refuses_is_left_for_the_next(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(hosts=3, faults=[refuses("sim-2", call, times=-1)])
    server = await cloud.booted()

    moved = await migrated(cloud, server)

    assert moved.host == "sim-3"
    assert (await cloud.world()).claims == {("sim-3", server.id)}


@pytest.mark.sampled
@pytest.mark.parametrize("call", ["receive_disks", "spawn", "resume", "bind"])
async def test_where_no_target_takes_it_all_is_as_before(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", call)])
    server = await cloud.booted()
    before = await cloud.world()

    operation = await cloud.client.servers.migrate(server.id)

    assert isinstance(await cloud.failure(operation), NoValidHost)
    await unmoved(cloud, server, before)
    [failed] = await cloud.client.migrations.list(host="sim-2", status="error")
    assert (failed.server_id, failed.id, failed.source) == (server.id, operation.run_id, "sim-1")


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["set_aside_claim", "stop_guest", "set_aside_guest", "offer_disks"])
@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_source_that_fails_is_named_and_all_is_as_before(cloud: Cloud, step: str, afterwards: bool) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD, afterwards=afterwards)

    failure = await cloud.failure(await cloud.client.servers.migrate(server.id))

    assert isinstance(failure, OperationFailed)
    assert "host sim-1, from which the server moves" in str(failure)
    await unmoved(cloud, server, before)


@pytest.mark.parametrize("move", ["migrate", "resize"])
async def test_a_guest_whose_disks_no_other_host_could_fetch_is_never_off_and_its_host_s_remedy_is_told(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, move: str
) -> None:
    server = await cloud.booted()
    before = await cloud.world()

    async def refuse(server_id: str) -> None:
        raise RescheduleError("closed", field="host.migration_address", value="127.0.0.1", remedy="set it")

    monkeypatch.setattr(cloud.machine("sim-1").hypervisor, "check_leaving", refuse)
    servers = cloud.client.servers
    asked = servers.resize(server.id, SMALL) if move == "resize" else servers.migrate(server.id)

    failure = await cloud.failure(await asked)

    assert isinstance(failure, OperationFailed)
    assert str(failure) == "host sim-1, from which the server moves: closed"
    detail = failure.detail
    assert (detail.field, detail.value, detail.remedy) == ("host.migration_address", "127.0.0.1", "set it")
    assert {"stop_guest", "set_aside_guest"}.isdisjoint(cloud.stage.names())
    await unmoved(cloud, server, before)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["set_aside_claim", "offer_disks", "receive_disks", "spawn", "resume_guest"])
async def test_a_move_that_is_cancelled_leaves_all_as_before(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    held = cloud.stage.hold(step)
    move = await cloud.client.servers.migrate(server.id)
    await held.reached.wait()
    await move.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(move), Cancelled)

    await unmoved(cloud, server, before)


async def test_a_delete_in_the_middle_leaves_nothing(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    held = cloud.stage.hold("receive_disks")
    await cloud.client.servers.migrate(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await delete.result(LIMIT)

    assert (await cloud.world()).besides(server.id) == before.besides(server.id)


async def test_a_begin_whose_answer_was_lost_for_good_is_taken_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    cloud.stage.fail("begin_move", FOR_GOOD, afterwards=True)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.migrate(server.id)

    await unmoved(cloud, server, before)


@pytest.mark.parametrize("steps", [("begin_move", "set_aside_claim", "set_aside_guest"), ("offer_disks", "spawn")])
async def test_steps_whose_answers_were_lost_are_done_again(cloud: Cloud, steps: tuple[str, ...]) -> None:
    server = await cloud.booted()
    for step in steps:
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert (await migrated(cloud, server)).host == "sim-2"


async def test_a_confirmation_that_the_source_cannot_take_part_in_is_owed(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    await cloud.stop_host("sim-1")

    assert (await confirmed(cloud, server)).status == "ACTIVE"

    assert (await cloud.world()).owed == {
        ("sim-1", "drop_former_guest"),
        ("sim-1", "unbind_ports"),
        ("sim-1", "drop_former_claim"),
    }
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert not world.owed
    assert not world.formers
    assert world.bound_ports == {("sim-2", server.id)}


async def test_what_has_lost_its_guest_is_not_confirmed_and_can_be_reverted(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    await cloud.machine("sim-2").hypervisor.destroy(server.id)

    failure = await cloud.failure(await cloud.client.servers.confirm_resize(server.id))

    assert isinstance(failure, InvalidState)
    assert (await cloud.client.servers.show(server.id)).status == "VERIFY_RESIZE"
    assert await reverted(cloud, server) == server


async def test_what_has_lost_its_former_guest_is_not_reverted(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    await cloud.machine("sim-1").hypervisor.drop_former(server.id)

    failure = await cloud.failure(await cloud.client.servers.revert_resize(server.id))

    assert isinstance(failure, InvalidState)
    assert (await cloud.client.servers.show(server.id)).status == "VERIFY_RESIZE"
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING


async def test_a_revert_does_not_start_a_second_guest_while_the_first_may_run(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    await cloud.stop_host("sim-2")

    failure = await cloud.failure(await cloud.client.servers.revert_resize(server.id))

    assert "sim-2 does not answer" in str(failure)
    assert await power_on(cloud, "sim-1", server) is PowerState.NOSTATE
    await cloud.start_host("sim-2")
    assert await reverted(cloud, server) == server


async def test_a_former_guest_that_does_not_start_leaves_the_server_stopped(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    cloud.stage.fail("start_guest", FOR_GOOD, times=STARTS)

    assert (await reverted(cloud, server)).status == "SHUTOFF"
    assert await starts(cloud, server) == [StepStatus.FAILED] * STARTS
    assert (await (await cloud.client.servers.start(server.id)).result(LIMIT)).status == "ACTIVE"


async def starts(cloud: Cloud, server: Server) -> list[StepStatus]:
    """What became of the revert's tries to start the former guest, by the server's history."""
    events = await cloud.client.servers.events(server.id)
    steps = [event.step for event in events if event.operation is OperationName.REVERT_RESIZE]
    return [step.status for step in steps if step.name == "start_guest"]


async def test_a_former_guest_that_does_not_start_at_once_is_started_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    cloud.stage.fail("start_guest", FOR_GOOD)

    assert await reverted(cloud, server) == server
    assert await starts(cloud, server) == [StepStatus.FAILED, StepStatus.DONE]
    assert await power_on(cloud, "sim-1", server) is PowerState.RUNNING


async def test_a_former_guest_whose_start_was_not_answered_is_asked_whether_it_runs(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    cloud.stage.fail("start_guest", FOR_GOOD, afterwards=True)

    assert await reverted(cloud, server) == server
    assert await starts(cloud, server) == [StepStatus.FAILED]


async def test_a_former_guest_whose_host_says_no_more_is_not_waited_for(cloud: Cloud) -> None:
    server = await cloud.booted()
    await migrated(cloud, server)
    held = cloud.stage.hold("start_guest")
    revert = await cloud.client.servers.revert_resize(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")

    assert (await revert.result(LIMIT)).status == "SHUTOFF"
    assert await starts(cloud, server) == [StepStatus.FAILED]


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["bring_back_claim", "bring_back_guest"])
@pytest.mark.parametrize("evacuated", [True, False])
async def test_a_source_that_is_declared_down_meanwhile_is_not_waited_for(
    cloud: Cloud, step: str, evacuated: bool
) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await migrated(cloud, server)
    held = cloud.stage.hold(step)
    revert = await cloud.client.servers.revert_resize(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "its power supply is on fire")

    shown = await revert.result(LIMIT)

    assert (shown.status, shown.host, shown.power_state) == ("ACTIVE", "sim-1", PowerState.SHUTDOWN)
    if evacuated:
        assert (await (await cloud.client.servers.evacuate(server.id)).result(LIMIT)).host == "sim-2"
    cloud.alive.add(cloud.machine("sim-1").id)
    await cloud.start_host("sim-1")
    assert await power_on(cloud, "sim-2" if evacuated else "sim-1", server) is PowerState.RUNNING
    assert await power_on(cloud, "sim-1" if evacuated else "sim-2", server) is PowerState.NOSTATE
    if not evacuated:
        assert await cloud.world() == before


async def test_a_delete_ends_the_tries_to_start_the_former_guest(cloud: Cloud) -> None:
    before = await cloud.world()
    server = await cloud.booted()
    await migrated(cloud, server)
    cloud.stage.fail("start_guest", FOR_GOOD, times=STARTS)
    held = cloud.stage.hold("start_guest")
    await cloud.client.servers.revert_resize(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()

    await delete.result(LIMIT)

    assert cloud.stage.names().count("start_guest") == 1
    assert (await cloud.world()).besides(server.id) == before.besides(server.id)
