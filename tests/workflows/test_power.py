"""Start, stop and reboot: from which states, and what they leave."""

from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import ValidationError
from temporalio.exceptions import ApplicationError

from hostler.contract.errors import Cancelled, InvalidState, NotFound, OperationFailed, ServerBusy
from hostler.contract.states import PowerState
from hostler.settings import TimeoutSettings
from tests.cloud import Cloud
from workflows.source import STOP

OPERATIONS = ["start", "stop", "reboot"]


async def test_a_server_is_stopped_and_started(cloud: Cloud) -> None:
    server = await cloud.booted()
    up = await cloud.world()

    stopped = await (await cloud.client.servers.stop(server.id)).result()
    assert (stopped.status, stopped.power_state, stopped.host) == ("SHUTOFF", "shutdown", "sim-1")
    assert (await cloud.world()).quota == up.quota
    started = await (await cloud.client.servers.start(server.id)).result()

    assert (started.status, started.power_state, started.task_state) == ("ACTIVE", "running", None)
    assert await cloud.world() == up


@pytest.mark.parametrize("hard", [False, True])
async def test_a_server_is_rebooted(cloud: Cloud, hard: bool) -> None:
    server = await cloud.booted()
    up = await cloud.world()

    rebooted = await (await cloud.client.servers.reboot(server.id, hard=hard)).result()

    assert (rebooted.status, rebooted.power_state) == ("ACTIVE", "running")
    assert (await cloud.client.servers.console_log(server.id)).count("login:") == 2
    assert await cloud.world() == up


async def test_meanwhile_its_status_says_what_is_being_done(cloud: Cloud) -> None:
    server = await cloud.booted()
    for hard, status in ((False, "REBOOT"), (True, "HARD_REBOOT")):
        held = cloud.stage.hold("reboot_guest")
        reboot = await cloud.client.servers.reboot(server.id, hard=hard)
        await held.reached.wait()
        assert (await cloud.client.servers.show(server.id)).status == status
        held.go_on.set()
        await reboot.result()


async def test_a_hard_reboot_starts_a_server_that_is_off(cloud: Cloud) -> None:
    server = await cloud.booted()
    await (await cloud.client.servers.stop(server.id)).result()

    assert (await (await cloud.client.servers.reboot(server.id, hard=True)).result()).status == "ACTIVE"


@pytest.mark.parametrize(("state", "operation"), [("up", "start"), ("off", "stop"), ("off", "reboot")])
async def test_an_operation_that_the_state_does_not_allow_is_refused(cloud: Cloud, state: str, operation: str) -> None:
    server = await cloud.booted()
    if state == "off":
        server = await (await cloud.client.servers.stop(server.id)).result()
    before = await cloud.world()

    with pytest.raises(InvalidState, match=server.status):
        await getattr(cloud.client.servers, operation)(server.id)

    assert await cloud.client.servers.show(server.id) == server
    assert await cloud.world() == before


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_server_on_no_host_is_told_so(cloud: Cloud, operation: str) -> None:
    boot = await cloud.boot(flavor="huge")
    await cloud.failure(boot)

    with pytest.raises(InvalidState):
        await getattr(cloud.client.servers, operation)(boot.server_id)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_server_that_is_not_there_is_not_found(cloud: Cloud, operation: str) -> None:
    with pytest.raises(NotFound):
        await getattr(cloud.client.servers, operation)(str(uuid4()))


async def test_the_same_request_is_done_once(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("reboot_guest")
    first = await cloud.client.servers.reboot(server.id, request_id="one")
    await held.reached.wait()
    second = await cloud.client.servers.reboot(server.id, request_id="one")
    held.go_on.set()
    await first.result()
    third = await cloud.client.servers.reboot(server.id, request_id="one")

    assert first.run_id == second.run_id == third.run_id
    await third.result()
    assert cloud.stage.names().count("reboot_guest") == 1


async def test_another_request_while_one_runs_is_refused(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("stop_guest")
    stop = await cloud.client.servers.stop(server.id)
    await held.reached.wait()

    with pytest.raises(ServerBusy, match=r"stop.*stop_guest"):
        await cloud.client.servers.stop(server.id)

    held.go_on.set()
    assert (await stop.result()).status == "SHUTOFF"


async def test_a_silent_host_leaves_the_server_as_it_was_and_is_named(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(await cloud.client.servers.stop(server.id))

    assert isinstance(failure, OperationFailed)
    assert "host sim-1 does not answer" in str(failure)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.task_state) == ("ACTIVE", None)
    await cloud.start_host("sim-1")
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"


async def test_a_host_that_cannot_stop_its_guest_leaves_the_server_as_it_was(cloud: Cloud) -> None:
    server = await cloud.booted()
    cloud.stage.fail("stop_guest", ValueError("it does not obey"))

    failure = await cloud.failure(await cloud.client.servers.stop(server.id, timeout=timedelta(0)))

    assert "it does not obey" in str(failure)
    assert await cloud.client.servers.show(server.id) == server


@pytest.mark.parametrize("operation", ["stop", "reboot"])
async def test_a_guest_that_may_take_its_time_has_all_of_it_before_the_step_is_given_up(
    cloud: Cloud, operation: str
) -> None:
    server = await cloud.booted()
    asked = await getattr(cloud.client.servers, operation)(server.id, timeout=timedelta(days=1))
    await asked.result()

    run = cloud.temporal.get_workflow_handle(f"server:{server.id}", run_id=asked.run_id)
    scheduled = [event.activity_task_scheduled_event_attributes async for event in run.fetch_history_events()]
    [step] = [one for one in scheduled if one.activity_type.name == f"{operation}_guest"]
    assert step.start_to_close_timeout.ToTimedelta() > timedelta(days=1)


def test_no_setting_lets_a_guest_take_as_long_as_the_step_that_stops_it() -> None:
    with pytest.raises(ValidationError, match="50 minutes"):
        TimeoutSettings(stop=STOP.timeout)


async def test_a_step_whose_answer_was_lost_is_done_again_and_changes_nothing(cloud: Cloud) -> None:
    server = await cloud.booted()
    for step in ("begin", "stop_guest", "settle"):
        cloud.stage.fail(step, OSError("lost"), afterwards=True)

    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"
    events = await cloud.client.servers.events(server.id)
    assert [e.step.name for e in events if e.operation == "stop"] == ["begin", "stop_guest", "settle"]


async def power_of(cloud: Cloud, server_id: str) -> PowerState:
    return await cloud.machine("sim-1").hypervisor.power_state(server_id)


FOR_GOOD = ApplicationError("no answer can be made of it", non_retryable=True)


async def test_a_stop_that_fails_after_the_guest_is_off_powers_it_on_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    cloud.stage.fail("stop_guest", FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.stop(server.id))

    assert await power_of(cloud, server.id) is PowerState.RUNNING
    assert await cloud.client.servers.show(server.id) == server


async def test_a_start_that_fails_after_the_guest_runs_powers_it_off_again(cloud: Cloud) -> None:
    server = await cloud.booted()
    stopped = await (await cloud.client.servers.stop(server.id)).result()
    cloud.stage.fail("start_guest", FOR_GOOD, afterwards=True)

    await cloud.failure(await cloud.client.servers.start(server.id))

    assert await power_of(cloud, server.id) is PowerState.SHUTDOWN
    assert await cloud.client.servers.show(server.id) == stopped


async def test_a_cancelled_stop_leaves_a_guest_that_runs(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("stop_guest")
    stop = await cloud.client.servers.stop(server.id)
    await held.reached.wait()
    await stop.cancel()
    held.go_on.set()

    assert isinstance(await cloud.failure(stop), Cancelled)

    assert await power_of(cloud, server.id) is PowerState.RUNNING
    assert await cloud.client.servers.show(server.id) == server


@pytest.mark.parametrize("afterwards", [False, True])
async def test_once_the_guest_is_off_a_stop_ends_as_asked_whatever_the_last_step_fails_with(
    cloud: Cloud, afterwards: bool
) -> None:
    server = await cloud.booted()
    cloud.stage.fail("settle", FOR_GOOD, afterwards=afterwards)

    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"
    assert await power_of(cloud, server.id) is PowerState.SHUTDOWN


@pytest.mark.parametrize("operation", ["stop", "reboot", "delete"])
async def test_a_server_that_was_taken_by_a_step_whose_answer_was_lost_for_good_is_given_back(
    cloud: Cloud, operation: str
) -> None:
    server = await cloud.booted()
    cloud.stage.fail("begin", FOR_GOOD, afterwards=True)

    with pytest.raises(OperationFailed):
        await getattr(cloud.client.servers, operation)(server.id)

    assert await cloud.client.servers.show(server.id) == server
    await cloud.deleted(server.id)


async def test_a_request_that_was_refused_as_the_server_was_busy_is_good_once_it_is_free(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("reboot_guest")
    reboot = await cloud.client.servers.reboot(server.id)
    await held.reached.wait()
    with pytest.raises(ServerBusy):
        await cloud.client.servers.stop(server.id, request_id="the same")
    held.go_on.set()
    await reboot.result()

    stop = await cloud.client.servers.stop(server.id, request_id="the same")

    assert (await stop.result()).status == "SHUTOFF"
