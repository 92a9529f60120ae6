"""Live migrate: the server runs on another host, and ran on exactly one all the while."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

import workflows.handing_over
from drivers.hypervisor.simulated_arrivals import Arrivals
from drivers.hypervisor.simulated_migration import SimulatedMigrations
from hostler.contract.errors import (
    Cancelled,
    InvalidRequest,
    InvalidState,
    NotFound,
    NoValidHost,
    OperationFailed,
    Preempted,
    RescheduleError,
)
from hostler.contract.servers import OnFailure, Server
from hostler.contract.states import PowerState
from tests.cloud import LIMIT, Cloud, breaks, refuses
from tests.workflows.conftest import StartCloud
from tests.workflows.test_hold import holding
from tests.workflows.test_move import content, power_on, unmoved

FOR_GOOD = ApplicationError("no answer can be made of it", non_retryable=True)


async def live_migrated(cloud: Cloud, server: Server, **options: object) -> Server:
    return await (await cloud.client.servers.live_migrate(server.id, **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method


async def running_on(cloud: Cloud, server: Server) -> list[str]:
    """The hosts on which the guest runs."""
    return [
        machine.name
        for machine in cloud.machines
        if await machine.hypervisor.power_state(server.id) is PowerState.RUNNING
    ]


async def test_a_server_goes_on_elsewhere_and_leaves_nothing_behind(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    disk = content(cloud, "sim-1", server)

    moved = await live_migrated(cloud, server)

    assert (moved.status, moved.host, moved.addresses) == ("ACTIVE", "sim-2", server.addresses)
    assert moved.migration is None
    assert await running_on(cloud, server) == ["sim-2"]
    assert content(cloud, "sim-2", server) == disk
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == world.bound_ports == {("sim-2", server.id)}
    for left in (world.incoming, world.formers, world.owed, world.held_servers):
        assert not left


async def test_it_is_the_same_run_of_the_guest(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.client.servers.console_log(server.id)

    await live_migrated(cloud, server)

    assert await cloud.client.servers.console_log(server.id) == before


async def test_meanwhile_it_is_migrating_and_held_on_both_hosts(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    held = cloud.stage.hold("migrate_guest")
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()

    shown, world = await cloud.client.servers.show(server.id), await cloud.world()

    assert (shown.status, shown.host) == ("MIGRATING", "sim-1")
    assert shown.migration is not None
    assert (shown.migration.source, shown.migration.target) == ("sim-1", "sim-2")
    assert world.allocations == world.claims == {("sim-1", server.id), ("sim-2", server.id)}
    held.go_on.set()
    await operation.result(LIMIT)


async def test_the_events_tell_how_long_the_guest_stood_still(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")

    await live_migrated(cloud, server)

    events = await cloud.client.servers.events(server.id)
    note = next(event.step.note for event in events if event.step.name == "migrate_guest")
    assert note is not None
    assert "the guest stood still for" in note


async def test_it_goes_to_the_host_that_is_named(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3)
    server = await cloud.booted(host="sim-1")

    assert (await live_migrated(cloud, server, host="sim-3")).host == "sim-3"


async def test_there_and_back(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()

    await live_migrated(cloud, server)
    back = await live_migrated(cloud, server)

    assert back.host == "sim-1"
    assert await cloud.world() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"host": "sim-1"}, InvalidRequest),
        ({"host": "nowhere"}, NotFound),
        ({"completion_timeout": timedelta(seconds=-1)}, InvalidRequest),
        ({"max_attempts": 0}, InvalidRequest),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_with_a_remedy(
    cloud: Cloud, options: dict[str, object], error: type[Exception]
) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()

    with pytest.raises(error) as refusal:
        await live_migrated(cloud, server, **options)

    assert refusal.value.remedy  # type: ignore[attr-defined]  # of our errors
    await unmoved(cloud, server, before)


async def test_only_a_server_that_runs_can(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)

    with pytest.raises(InvalidState, match="must be ACTIVE"):
        await live_migrated(cloud, server)


async def test_a_guest_that_went_off_meanwhile_is_told(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cloud.machine("sim-1").hypervisor.stop(server.id, timedelta(0), lambda said: None)

    error = await cloud.failure(await cloud.client.servers.live_migrate(server.id))

    assert isinstance(error, OperationFailed)
    assert "sim-1" in str(error)
    assert (await cloud.world()).allocations == {("sim-1", server.id)}


async def test_where_no_host_is_left_it_stays_and_hears_why(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=1)
    server = await cloud.booted()
    before = await cloud.world()

    error = await cloud.failure(await cloud.client.servers.live_migrate(server.id))

    assert isinstance(error, NoValidHost)
    await unmoved(cloud, server, before)


@pytest.mark.parametrize("call", ["prepare_incoming", "migrate"])
async def test_a_host_that_cannot_take_it_in_is_left_for_another(start_cloud: StartCloud, call: str) -> None:
    host = "sim-2" if call == "prepare_incoming" else "sim-1"
    cloud = await start_cloud(hosts=3, faults=[refuses(host, call)])
    server = await cloud.booted(host="sim-1")

    moved = await live_migrated(cloud, server)

    assert moved.host == "sim-3"
    world = await cloud.world()
    assert world.guests == world.claims == {("sim-3", server.id)}
    assert not world.incoming


@pytest.mark.parametrize("step", ["prepare_incoming", "bind_ports", "claim_resources", "migrate_guest"])
async def test_one_that_cannot_be_done_leaves_all_as_it_was(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    cloud.stage.fail(step, FOR_GOOD)

    await cloud.failure(await cloud.client.servers.live_migrate(server.id))

    await unmoved(cloud, server, before)


async def test_one_that_took_effect_and_then_failed_has_happened(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    cloud.stage.fail("migrate_guest", FOR_GOOD, afterwards=True)

    moved = await live_migrated(cloud, server)

    assert moved.host == "sim-2"
    assert await running_on(cloud, server) == ["sim-2"]


@pytest.mark.parametrize("step", ["describe_guest", "prepare_incoming"])
async def test_a_cancellation_before_it_is_sent_leaves_all_as_it_was(cloud: Cloud, step: str) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    held = cloud.stage.hold(step)
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()

    await operation.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(operation), Cancelled)
    await unmoved(cloud, server, before)


async def takes_long(cloud: Cloud) -> None:
    """No guest of sim-1 gets across before the test is over, unless it is forced."""
    cloud.settings.host.simulated.latency["migrate"] = LIMIT
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")


async def test_an_abort_on_its_way_leaves_all_as_it_was(cloud: Cloud) -> None:
    await takes_long(cloud)
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    operation = await cloud.client.servers.live_migrate(server.id)
    await cloud.reached(operation, "migrate_guest")

    await operation.cancel()

    assert isinstance(await cloud.failure(operation), Cancelled)
    await unmoved(cloud, server, before)


async def test_a_delete_in_the_middle_leaves_nothing_anywhere(cloud: Cloud) -> None:
    await takes_long(cloud)
    before = await cloud.world()
    server = await cloud.booted(host="sim-1")
    operation = await cloud.client.servers.live_migrate(server.id)
    await cloud.reached(operation, "migrate_guest")

    await cloud.deleted(server.id)

    assert isinstance(await cloud.failure(operation), Preempted)
    assert await cloud.world() == before


async def test_a_hold_waits_with_the_guest_at_home(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    cloud.stage.fail("migrate_guest", FOR_GOOD)
    operation = await cloud.client.servers.live_migrate(server.id, on_failure=OnFailure.HOLD)
    await holding(cloud, operation)

    assert await running_on(cloud, server) == ["sim-1"]
    await cloud.client.operations.retry(server.id)

    assert (await operation.result(LIMIT)).host == "sim-2"


async def test_a_try_that_was_decided_on_finds_nothing_of_the_one_before(cloud: Cloud) -> None:
    """All of the guest may have come, and its source, which had not heard of that, have kept it."""
    server = await cloud.booted(host="sim-1")
    cloud.stage.fail("migrate_guest", FOR_GOOD)
    operation = await cloud.client.servers.live_migrate(server.id, on_failure=OnFailure.HOLD, max_attempts=1)
    await holding(cloud, operation)

    await cloud.client.operations.retry(server.id)
    await operation.result(LIMIT)

    steps = [(step.name, step.host) for step in (await cloud.progress(operation)).steps]
    decided = [name for name, _ in steps].index("hold") + 1
    again = [("destroy_guest", "sim-2"), ("prepare_incoming", "sim-2"), ("migrate_guest", "sim-1")]
    assert steps[decided : decided + 3] == again


async def test_a_try_that_was_decided_on_asks_a_host_that_was_silent_again(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    cloud.stage.fail("migrate_guest", FOR_GOOD)
    held = cloud.stage.hold("migrate_guest")
    operation = await cloud.client.servers.live_migrate(server.id, on_failure=OnFailure.HOLD, max_attempts=1)
    await held.reached.wait()
    await cloud.stop_host("sim-2")
    held.go_on.set()
    await holding(cloud, operation)
    await cloud.start_host("sim-2")

    await cloud.client.operations.retry(server.id)

    assert (await operation.result(LIMIT)).host == "sim-2"


async def test_one_that_its_new_host_cannot_let_run_is_there_and_stands_still(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but a hard reboot helps it, for which no operation may have it."""

    def never(arrivals: Arrivals, server_id: str) -> bool:
        raise RescheduleError("resetting the virtual machine is required")

    monkeypatch.setattr(Arrivals, "run", never)
    monkeypatch.setattr(workflows.handing_over, "TRIES", 1)
    server = await cloud.booted(host="sim-1")

    moved = await live_migrated(cloud, server)

    assert (moved.status, moved.host, moved.power_state) == ("ACTIVE", "sim-2", PowerState.PAUSED)


async def test_who_forced_it_is_in_the_events(cloud: Cloud) -> None:
    await takes_long(cloud)
    server = await cloud.booted(host="sim-1")
    operation = await cloud.client.servers.live_migrate(server.id)
    await cloud.reached(operation, "migrate_guest")

    await cloud.client.operations.force_complete(server.id, by="anna")
    await operation.result(LIMIT)

    notes = [event.step.note or "" for event in await cloud.client.servers.events(server.id)]
    assert [note for note in notes if "stood still" in note and note.endswith("forced to its end by anna")]


async def test_who_cancelled_it_and_why_is_in_the_events(cloud: Cloud) -> None:
    await takes_long(cloud)
    server = await cloud.booted(host="sim-1")
    operation = await cloud.client.servers.live_migrate(server.id)
    await cloud.reached(operation, "migrate_guest")

    await cloud.client.operations.cancel(server.id, by="anna", note="too slow")
    await cloud.failure(operation)

    last = (await cloud.client.servers.events(server.id))[-1].step
    assert (last.name, last.note) == ("settle", "the live-migrate was cancelled: by anna: too slow")


async def test_nothing_can_be_hastened_that_is_not_on_its_way(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")

    with pytest.raises(InvalidState, match="no operation runs"):
        await cloud.client.operations.force_complete(server.id)

    held = cloud.stage.hold("prepare_incoming")
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    with pytest.raises(InvalidState, match="not on its way"):
        await cloud.client.operations.force_complete(server.id)
    held.go_on.set()
    await operation.result(LIMIT)


# Silent hosts: the guest runs on exactly one.


async def test_a_source_that_falls_silent_before_the_hand_over_keeps_the_guest(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    held = cloud.stage.hold("prepare_incoming")
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    held.go_on.set()

    error = await cloud.failure(operation)

    assert isinstance(error, OperationFailed)
    assert "sim-1" in str(error)
    await cloud.start_host("sim-1")
    await unmoved(cloud, server, before)


async def test_a_source_that_falls_silent_after_it_owes_the_rest(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    held = cloud.stage.hold("destroy_guest")
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    held.go_on.set()

    moved = await operation.result(LIMIT)

    assert moved.host == "sim-2"
    assert await running_on(cloud, server) == ["sim-2"]
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert world.guests == world.claims == world.bound_ports == {("sim-2", server.id)}
    assert not world.owed


async def test_a_target_that_falls_silent_before_the_hand_over_is_left_for_another(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3)
    server = await cloud.booted(host="sim-1")
    held = cloud.stage.hold("prepare_incoming")
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-2")
    cloud.alive.discard(cloud.machine("sim-2").id)
    held.go_on.set()

    moved = await operation.result(LIMIT)

    assert moved.host == "sim-3"
    await cloud.start_host("sim-2")
    world = await cloud.world()
    assert world.guests == world.claims == world.bound_ports == {("sim-3", server.id)}
    for left in (world.owed, world.incoming):
        assert not left


async def test_both_silent_it_waits_until_one_can_say_where_the_guest_is(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    held = cloud.stage.hold("migrate_guest", afterwards=True)
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-1")
    await cloud.stop_host("sim-2")
    await cloud.reached(operation, "look_for_arrival")

    await asyncio.sleep(1)
    assert (await cloud.client.servers.show(server.id)).status == "MIGRATING"
    await cloud.start_host("sim-2")

    moved = await operation.result(LIMIT)
    assert moved.host == "sim-2"
    assert await running_on(cloud, server) == ["sim-2"]
    await cloud.start_host("sim-1")
    assert (await cloud.world()).guests == {("sim-2", server.id)}


async def test_what_a_target_that_is_declared_down_took_along_is_started_again_from_what_is_here(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    cloud.stage.fail("migrate_guest", FOR_GOOD, afterwards=True)
    held = cloud.stage.hold("migrate_guest", afterwards=True)
    operation = await cloud.client.servers.live_migrate(server.id)
    await held.reached.wait()
    await cloud.stop_host("sim-2")
    cloud.alive.discard(cloud.machine("sim-2").id)
    held.go_on.set()
    await cloud.reached(operation, "declared_down")
    await cloud.client.hosts.declare_down("sim-2", "it burns")

    await cloud.failure(operation)

    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("SHUTOFF", "sim-1")
    await (await cloud.client.servers.start(server.id)).result(LIMIT)
    await cloud.start_host("sim-2")
    assert await running_on(cloud, server) == ["sim-1"]
    assert (await cloud.world()).guests == {("sim-1", server.id)}


def taken_over(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each guest that its new host is told to let run, whether it is to boot anew."""
    take_over, told = SimulatedMigrations.take_over, list[bool]()

    async def noted(host: SimulatedMigrations, server_id: str, *, anew: bool = False) -> None:
        told.append(anew)
        await take_over(host, server_id, anew=anew)

    monkeypatch.setattr(SimulatedMigrations, "take_over", noted)
    return told


async def test_what_has_come_whole_is_kept_when_its_source_is_declared_down(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await cloud.booted(host="sim-1")
    anew = taken_over(monkeypatch)
    held = cloud.stage.hold("end_migration")
    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "run", lambda *_: False)
        operation = await cloud.client.servers.live_migrate(server.id)
        await held.reached.wait()
        await cloud.stop_host("sim-1")
    cloud.alive.discard(cloud.machine("sim-1").id)
    held.go_on.set()
    await cloud.reached(operation, "declared_down")
    await cloud.client.hosts.declare_down("sim-1", "it burns")

    moved = await operation.result(LIMIT)

    assert (moved.status, moved.host) == ("ACTIVE", "sim-2")
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING
    assert anew == [True]
    await cloud.start_host("sim-1")
    assert (await cloud.world()).guests == {("sim-2", server.id)}


async def test_a_source_that_breaks_at_the_call_keeps_the_guest(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-1", "migrate")])
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()

    await cloud.failure(await cloud.client.servers.live_migrate(server.id))

    await unmoved(cloud, server, before)
    assert await power_on(cloud, "sim-2", server) is PowerState.NOSTATE
