"""Evacuate: the host is off, and its servers are built elsewhere; when it comes back it runs none of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import col, select
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from hostler.contract.errors import (
    BuildFailed,
    Cancelled,
    InvalidRequest,
    InvalidState,
    NoValidHost,
    OperationFailed,
    ServerBusy,
)
from hostler.contract.names import CONTROL_QUEUE, host_workflow_id
from hostler.contract.servers import Migration as MigrationView
from hostler.contract.servers import MigrationStatus, OnFailure, OperationName, Server
from hostler.contract.states import PowerState, VmState
from hostler.settings import OperationSettings
from models import Allocation, Host, Migration, now
from models import OwedWork as OwedRow
from models import Server as Row
from tests.cloud import DEMO, LIMIT, Cloud, World, breaks, refuses
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_audit import audit
from tests.workflows.test_cut_short import cut, lost
from tests.workflows.test_move import FOR_GOOD, SMALL, add_flavor, power_on
from workers.control import nudge_once

SOON = timedelta(milliseconds=200)
REMOVED = ("destroy_guest", "unbind_ports", "drop_claim", "drop_former_guest", "drop_former_claim")
OWED = {("sim-1", one) for one in ("stop_guest", *REMOVED)}
STEPS = (
    *("begin_evacuation", "schedule", "claim_resources", "fetch_image", "bind_ports", "spawn", "resume_guest"),
    *("owe", "finish_evacuation"),
)


async def declared_down(cloud: Cloud, name: str = "sim-1") -> None:
    await lost(cloud, name)
    await cloud.client.hosts.declare_down(name, "its power supply burnt")


async def come_back(cloud: Cloud, name: str = "sim-1") -> None:
    """The host is repaired and started; returns when it has registered."""
    cloud.alive.add(cloud.machine(name).id)
    await cloud.start_host(name)


async def evacuated(cloud: Cloud, server: Server, **options: object) -> Server:
    return await (await cloud.client.servers.evacuate(server.id, **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method


def running(cloud: Cloud, server_id: str) -> list[str]:
    """The hosts on which a guest of the server runs, or is paused."""
    files = cloud.settings.state_dir.glob(f"simulated/*/guests/{server_id}.json")
    return [file.parts[-3] for file in files if json.loads(file.read_text())["power_state"] != PowerState.SHUTDOWN]


@asynccontextmanager
async def never_twice(cloud: Cloud, server_id: str) -> AsyncIterator[None]:
    """Whatever happens meanwhile, no two guests of the server run."""
    seen: set[tuple[str, ...]] = set()

    async def look() -> None:
        while True:
            seen.add(tuple(sorted(running(cloud, server_id))))
            await asyncio.sleep(0.005)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
    assert all(len(hosts) < 2 for hosts in seen), seen


@asynccontextmanager
async def nudging(cloud: Cloud) -> AsyncIterator[None]:
    """As the control worker does, only sooner: hosts that owe and are up are asked to do it; done when they have."""
    over = asyncio.Event()

    async def nudge() -> None:
        while not over.is_set():
            await nudge_once(cloud.asking, cloud.database, lambda: frozenset(cloud.alive))
            await asyncio.sleep(SOON.total_seconds())

    async with asyncio.TaskGroup() as group:
        group.create_task(nudge())
        yield
        over.set()
    for machine in cloud.machines:
        if machine.id in cloud.alive:
            await cloud.registered(machine.name)


def owing(cloud: Cloud) -> list[str]:
    with cloud.database.read() as session:
        return list(session.exec(select(OwedRow.activity).order_by(col(OwedRow.created_at))).all())


def migrations(cloud: Cloud) -> list[tuple[str, str]]:
    with cloud.database.read() as session:
        rows = session.exec(select(Migration).order_by(col(Migration.created_at))).all()
        return [(row.kind.value, row.status.value) for row in rows]


async def nothing_left(cloud: Cloud, server: Server, host: str) -> None:
    """The server is on the host alone, and the audit has nothing to say."""
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == world.bound_ports == {(host, server.id)}
    assert not world.owed
    assert not world.formers
    assert (await audit(cloud)).findings == []


async def settled(cloud: Cloud) -> None:
    """Return when the hosts that are up owe nothing."""
    async with nudging(cloud):
        await eventually(lambda: not owing(cloud))


# What it does.


async def test_an_evacuated_server_runs_elsewhere_with_its_addresses(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1", metadata={"role": "web"})
    await declared_down(cloud)

    moved = await evacuated(cloud, server)

    assert (moved.status, moved.host, moved.power_state) == ("ACTIVE", "sim-2", PowerState.RUNNING)
    assert (moved.addresses, moved.metadata, moved.migration) == (server.addresses, server.metadata, None)
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING
    world = await cloud.world()
    assert world.allocations == {("sim-2", server.id)}
    assert world.owed == OWED
    assert owing(cloud) == ["stop_guest", *REMOVED]
    assert migrations(cloud) == [("evacuation", "completed")]


async def test_nothing_is_asked_of_the_host_that_is_down(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    operation = await cloud.client.servers.evacuate(server.id)
    await operation.result(LIMIT)

    steps = (await cloud.progress(operation)).steps

    assert [(step.name, step.status) for step in steps if step.host == "sim-1"] == [(name, "owed") for name in REMOVED]
    handle = cloud.temporal.get_workflow_handle(f"server:{server.id}")
    queues = {
        event.activity_task_scheduled_event_attributes.task_queue.name
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    }
    assert not any(cloud.machine("sim-1").id in queue for queue in queues)


async def test_a_host_that_comes_back_removes_what_was_evacuated(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    await evacuated(cloud, server)

    async with never_twice(cloud, server.id):
        await come_back(cloud)

    shown = await cloud.client.hosts.show("sim-1")
    assert (shown.down_since, shown.down_reason, shown.fenced, shown.owed) == (None, None, False, 0)
    await nothing_left(cloud, server, "sim-2")


async def test_its_history_says_why_and_what_its_host_has_done_since(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    await evacuated(cloud, server)
    await come_back(cloud)

    events = await cloud.client.servers.events(server.id)

    [why] = [event.step.note for event in events if event.step.name == "begin_evacuation"]
    assert why is not None
    assert why.startswith("host sim-1 is down since ")
    assert why.endswith(": its power supply burnt")
    done = [(event.step.name, event.step.host) for event in events if event.operation is OperationName.AUDIT]
    assert done == [(name, "sim-1") for name in ("stop_guest", *REMOVED)]


async def test_a_stopped_server_stays_off(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    await declared_down(cloud)

    moved = await evacuated(cloud, server)

    assert (moved.status, moved.host) == ("SHUTOFF", "sim-2")
    assert await power_on(cloud, "sim-2", server) is PowerState.SHUTDOWN
    await come_back(cloud)
    await nothing_left(cloud, server, "sim-2")


async def test_a_server_in_error_comes_up(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    with cloud.database.write() as session:
        session.get_one(Row, server.id).vm_state = VmState.ERROR
    await declared_down(cloud)

    moved = await evacuated(cloud, server)

    assert (moved.status, moved.host, moved.fault) == ("ACTIVE", "sim-2", None)


async def test_volumes_go_with_it(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3, volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1)
    mapping = {"source_type": "volume", "destination_type": "volume", "uuid": volume.id}
    server = await cloud.booted(host="sim-2", block_devices=[mapping])
    await declared_down(cloud, "sim-2")

    moved = await evacuated(cloud, server, host="sim-3")

    assert (moved.host, moved.devices) == ("sim-3", server.devices)
    assert (await cloud.client.volumes.show(volume.id)).server_id == server.id
    await come_back(cloud, "sim-2")
    assert (await audit(cloud)).findings == []


async def test_a_server_that_was_on_the_shelf_is_made_of_its_own_image(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.shelve(server.id)).result(LIMIT)
    await (await cloud.client.servers.unshelve(server.id, host="sim-1")).result(LIMIT)
    await declared_down(cloud)

    assert (await evacuated(cloud, server)).host == "sim-2"

    await come_back(cloud)
    await audit(cloud)  # which finds the image of its time on the shelf in a cache
    await nothing_left(cloud, server, "sim-2")
    assert (await (await cloud.client.servers.rebuild(server.id)).result(LIMIT)).status == "ACTIVE"


async def test_many_at_once(cloud: Cloud) -> None:
    servers = [await cloud.booted(f"web-{number}", host="sim-1") for number in range(6)]
    await declared_down(cloud)

    moved = await asyncio.gather(*(evacuated(cloud, server) for server in servers))

    assert {server.host for server in moved} == {"sim-2"}
    await come_back(cloud)
    assert (await cloud.world()).guests == {("sim-2", server.id) for server in servers}
    assert (await audit(cloud)).findings == []


# The declaration.


async def test_a_control_worker_that_has_yet_to_notice_does_not_take_it_back(cloud: Cloud) -> None:
    await declared_down(cloud)
    cloud.alive.add(cloud.machine("sim-1").id)

    async with nudging(cloud):
        await asyncio.sleep(20 * SOON.total_seconds())

    assert (await cloud.client.hosts.show("sim-1")).down_since is not None


async def test_a_host_that_answers_is_not_declared_down(cloud: Cloud) -> None:
    with pytest.raises(InvalidState, match="its worker answers") as caught:
        await cloud.client.hosts.declare_down("sim-1", "looks dead to me")
    assert caught.value.detail.remedy

    await lost(cloud, "sim-1")
    with pytest.raises(InvalidRequest, match="reason"):
        await cloud.client.hosts.declare_down("sim-1", "")
    assert (await cloud.client.hosts.show("sim-1")).down_since is None


async def test_a_declaration_is_shown_and_said_again_keeps_its_time(cloud: Cloud) -> None:
    await declared_down(cloud)
    first = await cloud.client.hosts.show("sim-1")
    assert (first.up, first.down_reason, first.fenced) == (False, "its power supply burnt", False)
    assert first.down_since is not None

    again = await cloud.client.hosts.declare_down("sim-1", "fenced by hand", fenced=True)

    assert (again.down_since, again.down_reason, again.fenced) == (first.down_since, "fenced by hand", True)


async def test_the_scheduler_takes_no_host_that_was_declared_down_even_if_it_answers(cloud: Cloud) -> None:
    await declared_down(cloud)
    cloud.alive.add(cloud.machine("sim-1").id)

    assert (await cloud.booted()).host == "sim-2"
    refused = await cloud.failure(await cloud.boot(host="sim-1"))

    assert isinstance(refused, NoValidHost)
    assert "1 declared down" in str(refused)


async def test_a_host_that_answers_again_without_having_been_restarted_is_no_longer_down(cloud: Cloud) -> None:
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "the network is cut")
    cloud.alive.add(cloud.machine("sim-1").id)

    def is_down() -> bool:
        with cloud.database.read() as session:
            return session.get_one(Host, cloud.machine("sim-1").id).down_since is not None

    async with nudging(cloud):
        await eventually(lambda: not is_down())
        await eventually(lambda: not owing(cloud))
    assert (await cloud.booted(host="sim-1")).host == "sim-1"


async def test_what_a_registration_has_asked_of_it_is_not_done_when_it_returns(cloud: Cloud) -> None:
    """A start that was owed, and waits in the host's queue, would come before anything that is owed since."""
    server = await cloud.booted(host="sim-1")
    await lost(cloud, "sim-1")
    owe(cloud, "sim-1", server, "start_guest")
    with cloud.database.read() as session:
        host = session.get_one(Host, cloud.machine("sim-1").id)
    await cloud.temporal.start_workflow(
        "register-host",
        {**cloud.machine("sim-1").registration().model_dump(mode="json"), "machine_id": host.machine_id},
        id=host_workflow_id(host.id),
        task_queue=CONTROL_QUEUE,
    )
    registration = cloud.temporal.get_workflow_handle(host_workflow_id(host.id))
    async with asyncio.timeout(LIMIT.total_seconds()):
        while "start_guest" not in await under_way(registration):  # noqa: ASYNC110 - it is about Temporal
            await asyncio.sleep(0.05)
    await cloud.client.hosts.declare_down("sim-1", "its power supply burnt")

    async with never_twice(cloud, server.id):
        await evacuated(cloud, server)
        await come_back(cloud)

    assert "start_guest" not in cloud.stage.names()
    await nothing_left(cloud, server, "sim-2")


async def under_way(run: WorkflowHandle[Any, Any]) -> set[str]:
    """What the run has asked for, and has no answer to."""
    return {one.activity_type.name for one in (await run.describe()).raw_description.pending_activities}


def owe(cloud: Cloud, host: str, server: Server, activity: str) -> None:
    cloud.add(
        OwedRow(
            id=str(uuid4()),
            host_id=cloud.machine(host).id,
            server_id=server.id,
            activity=activity,
            argument={"server_id": server.id},
            reason="a test",
        )
    )


# Refusals.


async def refused(cloud: Cloud, server: Server, match: str, **options: object) -> None:
    """It is refused with a remedy, and nothing has changed."""
    before, owed = await cloud.client.servers.show(server.id), owing(cloud)
    with pytest.raises((InvalidState, InvalidRequest, ServerBusy), match=match) as caught:
        await cloud.client.servers.evacuate(server.id, **options)  # type: ignore[arg-type]  # of the method
    assert caught.value.detail.remedy
    assert caught.value.detail.field
    assert await cloud.client.servers.show(server.id) == before
    assert owing(cloud) == owed


async def test_a_host_that_nobody_declared_down_is_not_left(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await refused(cloud, server, "sim-1 has not been declared down")
    await lost(cloud, "sim-1")
    await refused(cloud, server, "sim-1 has not been declared down")


async def test_a_host_that_answers_again_is_not_left(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    with cloud.database.write() as session:  # it was only cut off, and has not registered
        session.get_one(Host, cloud.machine("sim-1").id).down_since = now()
    async with nudging(cloud):
        with pytest.raises(InvalidState, match="sim-1 has not been declared down"):
            await cloud.client.servers.evacuate(server.id)
    assert await cloud.client.servers.show(server.id) == server


async def test_a_host_of_which_it_is_not_yet_noticed_that_it_is_down_is_left_then(cloud: Cloud) -> None:
    """Another control worker has noticed."""
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    cloud.alive.add(cloud.machine("sim-1").id)
    asking = asyncio.create_task(evacuated(cloud, server))
    await eventually(lambda: cloud.stage.names().count("begin_evacuation") > 1)
    cloud.alive.discard(cloud.machine("sim-1").id)
    assert (await asking).host == "sim-2"


async def test_it_is_not_built_beside_a_guest_that_an_evacuation_before_has_left(start_cloud: StartCloud) -> None:
    """Whoever declared sim-1 down was wrong, and it has come back only for the moment of its registration."""
    cloud = await start_cloud(hosts=3)
    server = await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "no answer")
    moved = await evacuated(cloud, server, host="sim-2")
    assert (moved.status, running(cloud, server.id)) == ("ACTIVE", ["sim-1", "sim-2"])
    with cloud.database.write() as session:
        session.get_one(Host, cloud.machine("sim-1").id).down_since = None
    await declared_down(cloud, "sim-2")

    await refused(cloud, server, "may be running on host sim-1")

    await cloud.client.hosts.declare_down("sim-1", "seen to be off")
    assert (await evacuated(cloud, server)).host == "sim-3"


async def test_it_does_not_go_to_where_it_is(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    await refused(cloud, server, "on host sim-1 already", host="sim-1")


async def test_a_server_that_waits_for_a_decision_is_not_evacuated(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.migrate(server.id)).result(LIMIT)
    await declared_down(cloud, "sim-2")
    await refused(cloud, server, "VERIFY_RESIZE")


@pytest.mark.parametrize("bootable", [True, False])
async def test_volumes_that_are_down_with_the_host_are_named(start_cloud: StartCloud, bootable: bool) -> None:
    cloud = await start_cloud(volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1, image=DEMO if bootable else None)
    index = {"boot_index": 0} if bootable else {}
    mapping = {"source_type": "volume", "destination_type": "volume", "uuid": volume.id, **index}
    server = await cloud.booted(host="sim-1", block_devices=[mapping], image=None if bootable else DEMO)
    await declared_down(cloud)
    await refused(cloud, server, f"volume {volume.id} of server web is kept on host sim-1, which is down")


async def test_without_its_image_there_is_nothing_to_build_it_from(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.client.images.delete(DEMO)
    await declared_down(cloud)
    await refused(cloud, server, "the image of server web is no longer there")


# Failures.


async def given_up(cloud: Cloud, server: Server, before: World) -> None:
    """It is where and what it was, but that its host owes that the guest is off; when that is back so is the server."""
    assert await cloud.client.servers.show(server.id) == server
    now = await cloud.world()
    assert (now.allocations, now.claims, now.guests) == (before.allocations, before.claims, before.guests)
    assert (now.bound_ports, now.formers, now.held_servers) == (before.bound_ports, before.formers, frozenset())
    assert now.owed == {("sim-1", "stop_guest")}
    await come_back(cloud)
    await cloud.becomes(server.id, "SHUTOFF")
    await eventually(lambda: not owing(cloud))
    assert (await (await cloud.client.servers.start(server.id)).result(LIMIT)).host == "sim-1"
    await nothing_left(cloud, server, "sim-1")


@pytest.mark.parametrize("call", ["spawn", "resume", "bind"])
async def test_a_target_that_refuses_is_left_for_the_next(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(hosts=3, faults=[refuses("sim-2", call, times=-1)])
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)

    assert (await evacuated(cloud, server)).host == "sim-3"

    await come_back(cloud)
    await nothing_left(cloud, server, "sim-3")


@pytest.mark.parametrize("call", ["spawn", "resume", "bind"])
async def test_where_no_target_takes_it_nothing_is_lost(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", call)])
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    await declared_down(cloud)

    failure = await cloud.failure(await cloud.client.servers.evacuate(server.id))

    assert isinstance(failure, NoValidHost)
    assert [attempt.host for attempt in failure.detail.attempts] == ["sim-2"]
    assert migrations(cloud) == [("evacuation", "error")]
    await given_up(cloud, server, before)


async def test_however_often_no_target_takes_it_its_host_owes_one_stop(cloud: Cloud) -> None:
    """Else what a host owes that is away for days would grow with every try, and its return take as long."""
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    await cloud.client.hosts.disable("sim-2")
    for _ in range(3):
        assert isinstance(await cloud.failure(await cloud.client.servers.evacuate(server.id)), NoValidHost)

    assert (await cloud.world()).owed == {("sim-1", "stop_guest")}
    assert (await cloud.client.hosts.show("sim-1")).owed == 1


async def test_a_server_in_error_is_told_why_it_stays_so(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", "spawn")], max_attempts=1)
    server = await cloud.booted(host="sim-1")
    with cloud.database.write() as session:
        session.get_one(Row, server.id).vm_state = VmState.ERROR
    await declared_down(cloud)

    failure = await cloud.failure(await cloud.client.servers.evacuate(server.id))

    assert isinstance(failure, BuildFailed)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("ERROR", "sim-1")
    assert shown.fault is not None
    assert shown.fault.error.message == failure.detail.message


async def test_it_can_be_tried_again(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-2", "spawn", times=3)])
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    await cloud.failure(await cloud.client.servers.evacuate(server.id))

    assert (await evacuated(cloud, server)).host == "sim-2"

    await come_back(cloud)
    await nothing_left(cloud, server, "sim-2")


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["schedule", "claim_resources", "fetch_image", "spawn", "resume_guest"])
async def test_one_that_is_cancelled_loses_nothing(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    await declared_down(cloud)
    held = cloud.stage.hold(step)
    operation = await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()
    await operation.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(operation), Cancelled)

    await given_up(cloud, server, before)


@pytest.mark.parametrize("step", ["spawn", "resume_guest"])
async def test_a_delete_in_the_middle_leaves_nothing(cloud: Cloud, step: str) -> None:
    before = await cloud.world()
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    held = cloud.stage.hold(step)
    await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await delete.result(LIMIT)
    await come_back(cloud)

    assert (await cloud.world()).besides(server.id) == before.besides(server.id)


async def test_a_begin_whose_answer_was_lost_for_good_is_taken_back(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    await declared_down(cloud)
    cloud.stage.fail("begin_evacuation", FOR_GOOD, afterwards=True)

    with pytest.raises(OperationFailed):
        await cloud.client.servers.evacuate(server.id)

    await given_up(cloud, server, before)


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["begin_evacuation", "schedule", "spawn", "resume_guest", "owe", "finish_evacuation"])
async def test_steps_whose_answers_were_lost_are_done_again(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert (await evacuated(cloud, server)).host == "sim-2"

    assert owing(cloud) == ["stop_guest", *REMOVED]
    await come_back(cloud)
    await nothing_left(cloud, server, "sim-2")


async def test_behind_the_point_of_no_return_it_goes_on_whatever_fails(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    cloud.stage.fail("finish_evacuation", ApplicationError("a bug", non_retryable=True))

    assert (await evacuated(cloud, server)).host == "sim-2"


async def test_one_that_holds_goes_on_as_an_operator_decides(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3, faults=[breaks("sim-2", "spawn")])
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    operation = await cloud.client.servers.evacuate(server.id, host="sim-2", max_attempts=1, on_failure=OnFailure.HOLD)
    await cloud.noted(server.id)
    async for progress in operation.follow():
        if progress.hold is not None:
            break

    await cloud.client.operations.move(server.id, host="sim-3")

    assert (await operation.result(LIMIT)).host == "sim-3"


# Targets that fall silent.


async def test_a_target_that_may_run_it_unseen_ends_it_until_that_is_known(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3)
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    held = cloud.stage.hold("resume_guest")
    operation = await cloud.client.servers.evacuate(server.id, host="sim-2")
    await held.reached.wait()
    cloud.alive.discard(cloud.machine("sim-2").id)
    await cloud.stop_host("sim-2")
    held.go_on.set()

    failure = await cloud.failure(operation)

    assert "may be running on host sim-2" in str(failure)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host, shown.power_state) == ("ERROR", "sim-1", PowerState.SHUTDOWN)
    await refused(cloud, server, "may be running on host sim-2")
    await cloud.client.hosts.declare_down("sim-2", "switched off by hand")
    assert (await evacuated(cloud, server)).host == "sim-3"
    for name in ("sim-1", "sim-2"):
        await come_back(cloud, name)
    await nothing_left(cloud, server, "sim-3")


# The source comes back.


@pytest.mark.sampled
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("owes_start", [False, True])
async def test_a_source_that_comes_back_meanwhile_never_runs_it_too(cloud: Cloud, step: str, owes_start: bool) -> None:
    server = await cloud.booted(host="sim-1")
    await lost(cloud, "sim-1")
    if owes_start:
        owe(cloud, "sim-1", server, "start_guest")
    await cloud.client.hosts.declare_down("sim-1", "its power supply burnt")
    async with never_twice(cloud, server.id):
        held = cloud.stage.hold(step, afterwards=step == "begin_evacuation")
        asking = asyncio.create_task(cloud.client.servers.evacuate(server.id))
        await held.reached.wait()
        if step == "owe":  # what is owed now is not yet known to the host that asks
            waiting = cloud.stage.hold("stop_guest")
            returning = asyncio.create_task(come_back(cloud))
            await waiting.reached.wait()
            waiting.go_on.set()
            held.go_on.set()
            await returning
        else:
            await come_back(cloud)
            held.go_on.set()
        moved = await (await asking).result(LIMIT)
        await settled(cloud)

    assert (moved.status, moved.host) == ("ACTIVE", "sim-2")
    assert running(cloud, server.id) == ["sim-2"]
    assert (await cloud.client.servers.show(server.id)).power_state is PowerState.RUNNING
    await nothing_left(cloud, server, "sim-2")


async def test_a_guest_that_runs_on_after_all_is_switched_off_before_the_host_says_what_it_holds(cloud: Cloud) -> None:
    """Whoever declared the host down was wrong: only its network was away."""
    server = await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "no answer")
    held = cloud.stage.hold("spawn")
    operation = await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()

    await come_back(cloud)

    assert running(cloud, server.id) == []
    held.go_on.set()
    assert (await operation.result(LIMIT)).host == "sim-2"
    await settled(cloud)
    await nothing_left(cloud, server, "sim-2")


async def runs_resized(cloud: Cloud, *, cut_short: bool) -> Server:
    """A server whose guest, resized on its host, runs on there, while that is declared down; no other host takes it."""
    server = await cloud.booted(host="sim-1")
    for name in ("sim-2", "sim-3"):
        await cloud.client.hosts.disable(name)
    held = cloud.stage.hold("resume_guest", afterwards=True)
    operation = await cloud.client.servers.resize(server.id, SMALL)
    await held.reached.wait()
    if cut_short:
        await cut(cloud, operation, held)
    else:
        held.go_on.set()
        await operation.result(LIMIT)
    await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    await cloud.client.hosts.declare_down("sim-1", "no answer")
    assert running(cloud, server.id) == ["sim-1"]
    return server


@pytest.mark.parametrize("moves", ["cut short", "undecided"])
async def test_such_a_guest_is_switched_off_whatever_else_of_its_server_the_host_cannot_do(
    three: Cloud, moves: str
) -> None:
    server = await runs_resized(three, cut_short=moves == "cut short")
    for name in ("sim-2", "sim-3"):
        await three.client.hosts.enable(name)
    moved = await evacuated(three, server)
    for work in ("bring_back_guest", "drop_former_guest"):
        three.stage.fail(work, FOR_GOOD)

    await come_back(three, "sim-1")

    assert running(three, server.id) == [moved.host]
    await settled(three)
    assert moved.host is not None
    await nothing_left(three, server, moved.host)


async def test_where_no_host_takes_it_what_is_brought_back_in_its_place_is_off(three: Cloud) -> None:
    server = await runs_resized(three, cut_short=True)
    await three.failure(await three.client.servers.evacuate(server.id))

    await come_back(three, "sim-1")

    assert not owing(three)
    assert await power_on(three, "sim-1", server) is PowerState.SHUTDOWN
    await eventually(lambda: (row := three.row(server.id)) is not None and row.power_state is PowerState.SHUTDOWN)
    assert (await three.client.servers.show(server.id)).status == "ERROR"
    await nothing_left(three, server, "sim-1")


async def test_what_the_host_reports_of_a_former_guest_changes_nothing(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    moved = await evacuated(cloud, server)
    held = cloud.stage.hold("stop_guest")
    returning = asyncio.create_task(come_back(cloud))
    await held.reached.wait()
    await eventually(lambda: "report_power_states" in cloud.stage.names())
    held.go_on.set()
    await returning

    assert await cloud.client.servers.show(server.id) == moved


async def test_what_it_owed_before_is_done_in_its_order(cloud: Cloud) -> None:
    """But nothing that starts a guest: were the evacuation to fail, that would be the one that is wanted."""
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.migrate(server.id)).result(LIMIT)
    await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    await cloud.machine("sim-1").hypervisor.stop(server.id, timedelta(0), lambda _: None)
    await cloud.machine("sim-1").hypervisor.set_aside(server.id)
    await lost(cloud, "sim-1")
    for activity in ("bring_back_guest", "start_guest"):
        owe(cloud, "sim-1", server, activity)
    await cloud.client.hosts.declare_down("sim-1", "its power supply burnt")
    cloud.stage.fail("spawn", FOR_GOOD, times=3)

    await cloud.failure(await cloud.client.servers.evacuate(server.id))

    assert owing(cloud) == ["bring_back_guest", "stop_guest"]
    await come_back(cloud)
    assert await power_on(cloud, "sim-1", server) is PowerState.SHUTDOWN
    await audit(cloud)
    assert (await cloud.client.servers.show(server.id)).status == "SHUTOFF"


# Cut short by force.


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("step", "back"),
    [
        *((step, back) for step in ("schedule", "spawn", "resume_guest") for back in (False, True)),
        ("owe", False),  # then its guest on the source is to be removed: it can only go on
    ],
)
async def test_one_that_was_cut_short_can_be_done_again_or_taken_back(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, step: str, back: bool
) -> None:
    monkeypatch.setattr("activities.control.audit.healing.LONG", timedelta(0))
    server = await cloud.booted(host="sim-1")
    await declared_down(cloud)
    held = cloud.stage.hold(step)
    operation = await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()
    shown = await cut(cloud, operation, held)
    assert shown.status == "ERROR"
    assert shown.fault is not None
    assert "hostler server evacuate" in (shown.fault.error.remedy or "")
    assert isinstance(shown.migration, MigrationView)
    assert shown.migration.status is MigrationStatus.MIGRATING
    with pytest.raises(ServerBusy, match="stop_guest"):
        await cloud.client.servers.rebuild(server.id)

    if back:
        await come_back(cloud)
        with pytest.raises(InvalidState, match="cut short"):
            await cloud.client.servers.rebuild(server.id)
        reverted = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
        assert (reverted.status, reverted.host) == ("ACTIVE", "sim-1")
        await nothing_left(cloud, server, "sim-1")
        return
    async with never_twice(cloud, server.id):
        assert (await evacuated(cloud, server)).host == "sim-2"
        await come_back(cloud)
    await nothing_left(cloud, server, "sim-2")


async def goes_nowhere(cloud: Cloud, server: Server, host: str = "sim-2") -> None:
    """An evacuation that finds no host."""
    await cloud.client.hosts.disable(host)
    await cloud.failure(await cloud.client.servers.evacuate(server.id))
    await cloud.client.hosts.enable(host)


async def test_one_that_was_off_stays_off_however_many_evacuations_it_takes(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.control.audit.healing.LONG", timedelta(0))
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    await declared_down(cloud)
    held = cloud.stage.hold("spawn")
    operation = await cloud.client.servers.evacuate(server.id)
    await held.reached.wait()
    await cut(cloud, operation, held)
    for _ in range(2):
        await goes_nowhere(cloud, server)
        assert (await cloud.client.servers.show(server.id)).status == "ERROR"

    assert (await evacuated(cloud, server)).status == "SHUTOFF"

    assert running(cloud, server.id) == []


async def test_one_that_was_started_since_is_running_again(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    await declared_down(cloud)
    await goes_nowhere(cloud, server)
    await come_back(cloud)
    await eventually(lambda: not owing(cloud))
    await (await cloud.client.servers.start(server.id)).result(LIMIT)
    with cloud.database.write() as session:
        session.get_one(Row, server.id).vm_state = VmState.ERROR
    await declared_down(cloud)

    assert (await evacuated(cloud, server)).status == "ACTIVE"


# Of one that waits to be confirmed or reverted.


@pytest.fixture
async def three(start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Three hosts and a larger flavor; the audit need not wait until a row has not changed for long."""
    monkeypatch.setattr("activities.control.audit.healing.LONG", timedelta(0))
    cloud = await start_cloud(hosts=3, operations=OperationSettings(resize_on_same_host=True))
    add_flavor(cloud)
    return cloud


async def waits(cloud: Cloud, target: str, **options: object) -> Server:
    """A server of sim-1 that was resized to the target; both are down."""
    server = await cloud.booted(host="sim-1")
    others = [machine.name for machine in cloud.machines if machine.name != target]
    for name in others:
        await cloud.client.hosts.disable(name)
    await (await cloud.client.servers.resize(server.id, SMALL, **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method
    for name in others:
        await cloud.client.hosts.enable(name)
    for name in sorted({"sim-1", target}):
        await declared_down(cloud, name)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("VERIFY_RESIZE", target)
    return server


@pytest.mark.parametrize("target", ["sim-1", "sim-2"])
async def test_a_server_of_which_nothing_can_be_asked_is_built_anew_as_it_is_now(three: Cloud, target: str) -> None:
    server = await waits(three, target)

    moved = await evacuated(three, server, host="sim-3")

    assert (moved.status, moved.host, moved.flavor, moved.migration) == ("ACTIVE", "sim-3", SMALL, None)
    assert migrations(three) == [("resize", "confirmed"), ("evacuation", "completed")]
    world = await three.world()
    assert world.allocations == {("sim-3", server.id)}
    for name in sorted({"sim-1", target}):
        await come_back(three, name)
    await nothing_left(three, server, "sim-3")
    other = await three.booted(flavor=SMALL)
    assert (await three.deleted(other.id)).status == "DELETED"
    assert (await three.world()).quota == world.quota


async def test_one_that_was_off_before_its_move_stays_off(three: Cloud) -> None:
    server = await three.booted(host="sim-1")
    await (await three.client.servers.stop(server.id)).result(LIMIT)
    await (await three.client.servers.migrate(server.id, host="sim-2")).result(LIMIT)
    for name in ("sim-1", "sim-2"):
        await declared_down(three, name)

    assert (await evacuated(three, server)).status == "SHUTOFF"


async def test_a_server_that_could_be_reverted_or_confirmed_is_not_built_anew(three: Cloud) -> None:
    server = await three.booted(host="sim-1")
    await (await three.client.servers.migrate(server.id, host="sim-2")).result(LIMIT)

    await declared_down(three, "sim-2")
    await refused(three, server, "what it was before is on host sim-1, which is not down")
    await come_back(three, "sim-2")
    await declared_down(three, "sim-1")
    await refused(three, server, "host sim-2 has not been declared down")

    assert (await (await three.client.servers.confirm_resize(server.id)).result(LIMIT)).host == "sim-2"


async def test_where_no_host_takes_it_it_waits_on_and_what_it_was_can_be_brought_back(three: Cloud) -> None:
    server = await waits(three, "sim-2", confirm_after=timedelta(hours=1))
    before, shown = await three.world(), await three.client.servers.show(server.id)

    await goes_nowhere(three, server, "sim-3")

    now = await three.world()
    assert await three.client.servers.show(server.id) == shown
    assert (now.allocations, now.formers, now.quota) == (before.allocations, before.formers, before.quota)
    assert now.owed == {("sim-2", "stop_guest")}
    await come_back(three, "sim-1")
    back = await (await three.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (back.status, back.host, back.flavor) == ("ACTIVE", "sim-1", server.flavor)
    await come_back(three, "sim-2")
    await nothing_left(three, server, "sim-1")


async def test_nor_does_one_that_waits_lose_its_room_on_either_host(three: Cloud) -> None:
    server = await waits(three, "sim-2")
    rooms = allocated(three)

    await goes_nowhere(three, server, "sim-3")

    assert allocated(three) == rooms


def allocated(cloud: Cloud) -> set[tuple[str, bool, int]]:
    names = {machine.id: machine.name for machine in cloud.machines}
    with cloud.database.read() as session:
        return {(names[one.host_id], one.former, one.ram_mib) for one in session.exec(select(Allocation))}


async def test_one_that_had_stayed_on_its_host_is_confirmed_by_the_try(three: Cloud) -> None:
    """Its host removes what it was before anything is asked of it: whoever finds a guest there knows which it is."""
    server = await waits(three, "sim-1")
    await three.client.hosts.disable("sim-3")

    await goes_nowhere(three, server)

    shown = await three.client.servers.show(server.id)
    assert (shown.status, shown.host, shown.flavor) == ("ACTIVE", "sim-1", SMALL)
    await come_back(three)
    await three.becomes(server.id, "SHUTOFF")
    await eventually(lambda: not owing(three))
    await (await three.client.servers.start(server.id)).result(LIMIT)
    await nothing_left(three, server, "sim-1")


@pytest.mark.sampled
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("target", ["sim-1", "sim-2"])
async def test_one_that_waited_and_was_cut_short_can_be_done_again_or_taken_back(
    three: Cloud, target: str, back: bool
) -> None:
    server = await waits(three, target)
    held = three.stage.hold("resume_guest")
    operation = await three.client.servers.evacuate(server.id)
    await held.reached.wait()
    assert (await cut(three, operation, held)).status == "ERROR"

    if back:
        for name in sorted({"sim-1", target}):
            await come_back(three, name)
        shown = await (await three.client.servers.revert_resize(server.id)).result(LIMIT)
        assert (shown.status, shown.host, shown.flavor) == ("ACTIVE", target, SMALL)
        await settled(three)  # what it was is removed, where that was elsewhere
        await nothing_left(three, server, target)
        return
    there = await evacuated(three, server)
    assert (there.status, there.flavor) == ("ACTIVE", SMALL)
    for name in sorted({"sim-1", target}):
        await come_back(three, name)
    assert there.host is not None
    await nothing_left(three, server, there.host)


async def test_one_that_waited_and_was_cut_short_can_be_deleted(three: Cloud) -> None:
    server = await waits(three, "sim-2")
    held = three.stage.hold("resume_guest")
    operation = await three.client.servers.evacuate(server.id)
    await held.reached.wait()
    await cut(three, operation, held)
    await come_back(three, "sim-1")  # what it has set aside may still be wanted

    await three.deleted(server.id)

    await come_back(three, "sim-2")
    await settled(three)
    world = await three.world()
    for left in (world.guests, world.formers, world.claims, world.allocations, world.owed):
        assert not left


async def test_taken_back_while_its_former_host_is_down_that_owes_the_removal_of_what_it_was(three: Cloud) -> None:
    server = await waits(three, "sim-2")
    held = three.stage.hold("resume_guest")
    operation = await three.client.servers.evacuate(server.id)
    await held.reached.wait()
    await cut(three, operation, held)
    await come_back(three, "sim-2")

    shown = await (await three.client.servers.revert_resize(server.id)).result(LIMIT)

    assert (shown.status, shown.host, shown.flavor) == ("ACTIVE", "sim-2", SMALL)
    assert allocated(three) == {("sim-2", False, 256)}
    assert {("sim-1", work) for work in REMOVED} <= (await three.world()).owed
    await come_back(three, "sim-1")
    await nothing_left(three, server, "sim-2")


async def test_one_that_waited_and_may_run_unseen_no_longer_waits(three: Cloud) -> None:
    server = await waits(three, "sim-2")
    held = three.stage.hold("resume_guest")
    operation = await three.client.servers.evacuate(server.id)
    await held.reached.wait()
    three.alive.discard(three.machine("sim-3").id)
    await three.stop_host("sim-3")
    held.go_on.set()

    assert "may be running on host sim-3" in str(await three.failure(operation))

    shown = await three.client.servers.show(server.id)
    assert (shown.status, shown.host, shown.migration) == ("ERROR", "sim-2", None)
    assert allocated(three) == {("sim-2", False, 256)}
    await come_back(three, "sim-3")
    assert (await evacuated(three, server)).host == "sim-3"
    for name in ("sim-1", "sim-2"):
        await come_back(three, name)
    await nothing_left(three, server, "sim-3")


async def test_a_source_that_comes_back_meanwhile_may_be_its_new_host(three: Cloud) -> None:
    server = await waits(three, "sim-2")
    held = three.stage.hold("begin_evacuation", afterwards=True)
    asking = asyncio.create_task(three.client.servers.evacuate(server.id, host="sim-1"))
    await held.reached.wait()
    await come_back(three, "sim-1")
    held.go_on.set()

    assert (await (await asking).result(LIMIT)).host == "sim-1"

    await come_back(three, "sim-2")
    await settled(three)
    await nothing_left(three, server, "sim-1")


async def test_the_failure_of_a_host_takes_one_that_waits_away_too(three: Cloud) -> None:
    server = await waits(three, "sim-1")

    result = await (await three.client.hosts.evacuate("sim-1", force=True)).result(LIMIT)

    assert [one.server_id for one in result.moved] == [server.id]
