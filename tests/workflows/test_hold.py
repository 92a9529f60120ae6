"""Operations that hold instead of giving up, and what operators decide about them."""

import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.worker import HandleSignalInput, WorkflowInboundInterceptor

from hostler import Server
from hostler.client import Operation
from hostler.contract.errors import (
    BuildFailed,
    Cancelled,
    HostlerError,
    InvalidRequest,
    InvalidState,
    NotFound,
    OperationFailed,
    RescheduleError,
)
from hostler.contract.names import HELD
from hostler.contract.servers import Choice, Hold, OnFailure, StepStatus, VifPlugged
from hostler.settings import OperationSettings
from tests.cloud import LIMIT, Cloud, refuses
from tests.stage import Stage
from tests.workflows.conftest import StartCloud
from tests.workflows.test_volume import attach, image_id, new_root

BROKEN = ApplicationError("the disk is on fire", non_retryable=True)


class SlowToHear(WorkflowInboundInterceptor):
    """While a workflow hears a signal, what else comes is gathered, and then comes together."""

    async def handle_signal(self, input: HandleSignalInput) -> None:
        """Hear it, slowly."""
        time.sleep(0.5)  # noqa: ASYNC251 - the workflow's thread is what is to be kept busy
        await super().handle_signal(input)


@pytest.fixture
def slow_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the control worker's workflows be so."""
    monkeypatch.setattr(Stage, "workflow_interceptor_class", lambda self, input: SlowToHear)


async def holding(cloud: Cloud, operation: Operation, *, after: Hold | None = None) -> Hold:
    """The hold at which the operation arrives, `after` one that was decided on, which shows for a moment more."""
    async for progress in operation.follow():
        if progress.hold is not None and progress.hold != after:
            return progress.hold
    raise AssertionError("it ended without a hold")


async def held_boot(cloud: Cloud, **options: Any) -> Operation:
    """A boot that holds rather than gives up."""
    return await cloud.boot(on_failure=OnFailure.HOLD, **options)


async def outcome(operation: Operation) -> Server:
    return await operation.result(LIMIT)


async def test_a_boot_that_would_give_up_holds_with_its_world_intact(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN)
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=2)

    hold = await holding(cloud, boot)

    assert (hold.step, hold.attempt, hold.host) == ("spawn", 2, "sim-2")
    assert "the disk is on fire" in hold.error.message
    assert hold.choices == [Choice.RETRY, Choice.MOVE, Choice.GIVE_UP]
    world = await cloud.world()
    assert {name for name, _ in world.allocations} == {"sim-2"}
    assert world.claims
    assert world.bound_ports
    assert world.ports
    await cloud.client.operations.give_up(boot.server_id)
    await cloud.failure(boot)


async def test_a_hold_shows_in_the_row_the_history_and_the_index(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)
    await cloud.noted(boot.server_id)

    shown = await cloud.client.servers.show(boot.server_id)
    assert shown.hold is not None
    assert shown.hold.step == "spawn"
    events = [event.step for event in await cloud.client.servers.events(boot.server_id)]
    assert {("spawn", StepStatus.FAILED), ("hold", StepStatus.HELD)} <= {(one.name, one.status) for one in events}
    handle = cloud.temporal.get_workflow_handle(f"server:{boot.server_id}")
    assert (await handle.describe()).typed_search_attributes.get(HELD)

    await cloud.client.operations.retry(boot.server_id, by="ann", note="put it out")
    server = await outcome(boot)

    assert (server.hold, server.fault) == (None, None)
    assert not (await handle.describe()).typed_search_attributes.get(HELD)
    notes = [event.step.note for event in await cloud.client.servers.events(boot.server_id) if event.step.note]
    assert any("retry by ann: put it out" in note for note in notes)


async def test_retry_repeats_the_step_and_only_that(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    await cloud.client.operations.retry(boot.server_id)

    assert (await outcome(boot)).status == "ACTIVE"
    names = cloud.stage.names(f"server:{boot.server_id}")
    assert (names.count("spawn"), names.count("claim_resources"), names.count("destroy_guest")) == (2, 1, 0)


async def test_what_fails_again_holds_again(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN, times=2)
    boot = await held_boot(cloud, max_attempts=1)
    hold = None
    for _ in range(2):
        hold = await holding(cloud, boot, after=hold)
        await cloud.client.operations.retry(boot.server_id)

    assert (await outcome(boot)).status == "ACTIVE"


async def test_a_move_leaves_the_host_for_the_named_one_beyond_the_limit_of_attempts(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=3)
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    await cloud.client.operations.move(boot.server_id, host="sim-3")

    assert (await outcome(boot)).host == "sim-3"
    world = await cloud.world()
    assert {name for name, _ in world.allocations | world.claims | world.guests} == {"sim-3"}


async def test_a_move_without_a_name_takes_the_schedulers_choice_but_not_the_host_that_failed(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    await cloud.client.operations.move(boot.server_id)

    assert (await outcome(boot)).host == "sim-2"


async def test_give_up_undoes_all_of_it(cloud: Cloud) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    await cloud.client.operations.give_up(boot.server_id, note="not worth it")

    assert isinstance(await cloud.failure(boot), HostlerError)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)
    shown = await cloud.client.servers.show(boot.server_id)
    assert (shown.status, shown.hold) == ("ERROR", None)


async def test_a_hold_that_nobody_decides_on_gives_up_by_itself(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=OperationSettings(hold=timedelta(seconds=1)))
    before = await cloud.world()
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)

    await cloud.failure(boot)

    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)
    notes = [event.step.note or "" for event in await cloud.client.servers.events(boot.server_id)]
    assert any("nobody decided" in note for note in notes)


async def test_the_setting_holds_for_requests_that_do_not_say(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=OperationSettings(on_failure="hold"))
    cloud.stage.fail("spawn", BROKEN)
    assert isinstance(await cloud.failure(await cloud.boot(max_attempts=1, on_failure=OnFailure.GIVE_UP)), BuildFailed)
    cloud.stage.fail("spawn", BROKEN)
    boot = await cloud.boot(max_attempts=1)
    assert (await holding(cloud, boot)).step == "spawn"
    await cloud.client.operations.give_up(boot.server_id)
    await cloud.failure(boot)


async def test_while_another_host_is_left_it_is_taken_without_a_hold(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[refuses("sim-1", "spawn")])

    server = await outcome(await held_boot(cloud))

    assert server.host == "sim-2"


async def test_no_valid_host_holds_and_a_retry_searches_among_all_again(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[refuses("sim-1", "spawn"), refuses("sim-2", "spawn")])
    boot = await held_boot(cloud, max_attempts=3)
    hold = await holding(cloud, boot)
    assert (hold.step, hold.error.code) == ("schedule", "NoValidHost")

    await cloud.client.operations.retry(boot.server_id)

    assert (await outcome(boot)).host == "sim-1"


@pytest.mark.parametrize("step", ["fetch_image", "create_volume_data", "export_volume"])
async def test_a_volume_that_the_servers_own_host_cannot_make_or_serve_holds_though_attempts_are_left(
    start_cloud: StartCloud, step: str
) -> None:
    cloud = await start_cloud(volumes=True)
    cloud.stage.fail(step, RescheduleError("not now"))
    boot = await held_boot(cloud, **new_root(uuid=await image_id(cloud)) | {"image": None})

    hold = await holding(cloud, boot)

    assert (hold.step, hold.host, hold.choices) == (step, "sim-1", [Choice.RETRY, Choice.GIVE_UP])
    with pytest.raises(InvalidState, match="another host would not help"):
        await cloud.client.operations.move(boot.server_id)
    await cloud.client.operations.retry(boot.server_id)
    assert (await outcome(boot)).host == "sim-1"


@pytest.mark.parametrize("error", [RescheduleError("not now"), BROKEN], ids=["busy", "broken"])
@pytest.mark.parametrize("operation", ["unshelve", "migrate"])
async def test_a_volume_of_a_server_that_comes_to_the_host_which_keeps_it_holds_too(
    start_cloud: StartCloud, operation: str, error: Exception
) -> None:
    cloud = await start_cloud(volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1)
    server = await cloud.booted(host="sim-2", **attach(volume.id))
    if operation == "unshelve":
        await outcome(await cloud.client.servers.shelve(server.id))
    before = await cloud.world()
    cloud.stage.fail("export_volume", error)
    ask = getattr(cloud.client.servers, operation)
    asked = await ask(server.id, host="sim-1", on_failure=OnFailure.HOLD)

    hold = await holding(cloud, asked)

    assert (hold.step, hold.host, hold.choices) == ("export_volume", "sim-1", [Choice.RETRY, Choice.GIVE_UP])
    await cloud.client.operations.give_up(server.id)
    failure = await cloud.failure(asked)
    assert isinstance(failure, OperationFailed)
    assert f"volume {volume.id} on host sim-1" in str(failure)
    assert await cloud.world() == before


async def test_what_the_host_of_its_volume_cannot_do_as_the_servers_host_is_done_by_another(
    start_cloud: StartCloud,
) -> None:
    cloud = await start_cloud(volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1)
    held = cloud.stage.hold("export_volume")
    cloud.stage.fail("fetch_image", RescheduleError("no room"))
    boot = await held_boot(cloud, **attach(volume.id))
    await held.reached.wait()
    async for progress in boot.follow():
        if any((one.name, one.status) == ("fetch_image", StepStatus.FAILED) for one in progress.steps):
            break
    held.go_on.set()

    assert (await outcome(boot)).host == "sim-2"


async def test_steps_that_fail_side_by_side_hold_one_after_the_other(cloud: Cloud) -> None:
    cloud.stage.fail("allocate_ports", BROKEN)
    cloud.stage.fail("prep_block_devices", BROKEN)
    boot = await held_boot(cloud)
    hold, seen = None, set()
    for _ in range(2):
        hold = await holding(cloud, boot, after=hold)
        seen.add(hold.step)
        await cloud.client.operations.retry(boot.server_id)

    assert seen == {"allocate_ports", "prep_block_devices"}
    assert (await outcome(boot)).status == "ACTIVE"


async def test_a_missing_vif_plugged_event_holds_too(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.machine("sim-1").network, "plug", lambda port_id: None)
    boot = await held_boot(cloud, max_attempts=1)

    assert (await holding(cloud, boot)).step == "wait_vif_plugged"

    await cloud.client.operations.give_up(boot.server_id)
    await cloud.failure(boot)


async def test_a_power_operation_holds_and_offers_no_other_host(cloud: Cloud) -> None:
    server = await cloud.booted()
    cloud.stage.fail("stop_guest", BROKEN)
    stop = await cloud.client.servers.stop(server.id, on_failure=OnFailure.HOLD)
    assert (await holding(cloud, stop)).choices == [Choice.RETRY, Choice.GIVE_UP]

    with pytest.raises(InvalidState, match="another host would not help"):
        await cloud.client.operations.move(server.id)
    await cloud.client.operations.retry(server.id)

    assert (await outcome(stop)).status == "SHUTOFF"


async def test_decisions_that_make_no_sense_are_refused_and_change_nothing(cloud: Cloud) -> None:
    held = cloud.stage.hold("spawn")
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await held.reached.wait()
    with pytest.raises(InvalidState, match=r"does not hold, it is at .*spawn"):
        await cloud.client.operations.retry(boot.server_id)
    held.go_on.set()
    await holding(cloud, boot)

    with pytest.raises(NotFound, match="no host 'nowhere'"):
        await cloud.client.operations.move(boot.server_id, host="nowhere")
    handle = cloud.temporal.get_workflow_handle(f"server:{boot.server_id}")
    with pytest.raises(Exception, match="failed") as refusal:
        await handle.execute_update("decide", {"choice": "retry", "host": "sim-2"})
    assert InvalidRequest.__name__ in repr(refusal.value.__cause__)
    assert (await cloud.client.servers.show(boot.server_id)).hold is not None

    await handle.execute_update("decide", {"choice": "retry", "by": "the UI"})
    assert (await outcome(boot)).status == "ACTIVE"


async def test_a_held_operation_can_be_cancelled(cloud: Cloud) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    await boot.cancel()

    assert isinstance(await cloud.failure(boot), Cancelled)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


async def test_a_held_boot_can_be_deleted(cloud: Cloud) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)

    assert (await cloud.deleted(boot.server_id)).hold is None

    assert await cloud.world() == before


async def test_a_hold_outlives_the_control_worker(cloud: Cloud) -> None:
    cloud.stage.fail("spawn", BROKEN)
    boot = await held_boot(cloud, max_attempts=1)
    await holding(cloud, boot)
    await cloud.stop_control()
    await cloud.start_control()

    await cloud.client.operations.retry(boot.server_id)

    assert (await outcome(boot)).status == "ACTIVE"


async def test_a_guest_that_may_run_unseen_is_not_moved(cloud: Cloud) -> None:
    held = cloud.stage.hold("resume_guest")
    boot = await held_boot(cloud)
    await held.reached.wait()
    await cloud.stop_host("sim-1")

    hold = await holding(cloud, boot)
    assert (hold.step, hold.choices) == ("resume_guest", [Choice.RETRY, Choice.GIVE_UP])

    await cloud.start_host("sim-1")
    await cloud.client.operations.retry(boot.server_id)
    assert (await outcome(boot)).host == "sim-1"


@pytest.mark.parametrize("together", [False, True], ids=["before", "together with"])
@pytest.mark.parametrize("interruption", ["cancel", "delete"])
async def test_a_hold_can_be_interrupted_before_it_has_been_told(
    slow_to_hear: None, cloud: Cloud, interruption: str, together: bool
) -> None:
    before = await cloud.world()
    cloud.stage.fail("spawn", BROKEN)
    told = cloud.stage.hold("note")
    boot = await held_boot(cloud, max_attempts=1)
    await told.reached.wait()

    if together:
        handle = cloud.temporal.get_workflow_handle(f"server:{boot.server_id}")
        await handle.signal("vif_plugged", VifPlugged(port_id="another", host_id="another"))
        told.go_on.set()
    if interruption == "cancel":
        await boot.cancel()
        told.go_on.set()
        assert isinstance(await cloud.failure(boot), Cancelled)
    else:
        deleting = await cloud.client.servers.delete(boot.server_id)
        told.go_on.set()
        await outcome(deleting)

    server = await cloud.client.servers.show(boot.server_id)
    assert server.hold is None
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


async def test_a_host_that_was_silent_and_is_repaired_does_its_undos_again(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    await cloud.stop_host("sim-1")
    stop = await cloud.client.servers.stop(server.id, on_failure=OnFailure.HOLD)
    assert "nothing ran there" in (await holding(cloud, stop)).error.message
    await cloud.start_host("sim-1")
    cloud.stage.fail("stop_guest", BROKEN, afterwards=True)

    await cloud.client.operations.retry(server.id)
    assert "on fire" in (await holding(cloud, stop)).error.message
    await cloud.client.operations.give_up(server.id)

    await cloud.failure(stop)
    assert await cloud.world() == before
    assert (await cloud.client.servers.show(server.id)).status == "ACTIVE"
