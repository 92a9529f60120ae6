"""`client.operations`: what runs, what holds, and what an operator decides about it."""

import asyncio
import getpass
import socket
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from hostler import Client
from hostler.codec import EncryptionCodec
from hostler.contract.errors import BuildFailed, Cancelled, InvalidRequest, InvalidState, NotFound, OperationFailed
from hostler.contract.servers import Choice, OnFailure, OperationName, StepStatus
from hostler.encryption import load_keys
from hostler.settings import OperationSettings
from tests.cloud import LIMIT, Cloud
from tests.hostler.held import ON_FIRE, held_boot, holding, indexed
from tests.workflows.conftest import StartCloud


async def test_those_that_run_are_listed_the_latest_first(cloud: Cloud) -> None:
    spawns = [cloud.stage.hold("spawn") for _ in range(2)]
    boots = []
    for spawn, name in zip(spawns, ("web", "db"), strict=True):
        boots.append(await cloud.boot(name))
        await spawn.reached.wait()
    for boot in boots:
        await indexed(cloud, boot.server_id, "HostlerStep = 'set_task_state spawn' OR HostlerStep = 'spawn'")

    listed = await cloud.client.operations.list()

    assert [(one.server_name, one.operation, one.held) for one in listed] == [
        ("db", OperationName.BOOT, False),
        ("web", OperationName.BOOT, False),
    ]
    assert all(one.host in ("sim-1", "sim-2") and "spawn" in (one.step or "") for one in listed)
    assert [one.run_id for one in listed] == [boot.run_id for boot in reversed(boots)]
    assert len(await cloud.client.operations.list(limit=1)) == 1
    for spawn in spawns:
        spawn.go_on.set()
    for boot in boots:
        await boot.result(LIMIT)
        await indexed(cloud, boot.server_id, "ExecutionStatus = 'Completed'")
    assert await cloud.client.operations.list() == []


async def test_those_that_hold_are_listed_with_the_reason(cloud: Cloud) -> None:
    await held_boot(cloud, "stuck")
    spawn = cloud.stage.hold("spawn")
    busy = await cloud.boot("busy")
    await spawn.reached.wait()
    await indexed(cloud, busy.server_id, "ExecutionStatus = 'Running'")

    [held] = await cloud.client.operations.list(held=True)

    assert (held.server_name, held.held) == ("stuck", True)
    assert held.hold is not None
    assert held.hold.error.message.endswith("the disk is on fire")
    assert [one.server_name for one in await cloud.client.operations.list(held=False)] == ["busy"]
    assert {one.server_name for one in await cloud.client.operations.list()} == {"stuck", "busy"}
    spawn.go_on.set()


async def test_those_that_take_too_long_are_listed(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(operations=OperationSettings(overdue={"boot": timedelta(seconds=0.1)}))
    spawn = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await indexed(cloud, boot.server_id, "HostlerOverdue = true")

    assert [one.server_id for one in await cloud.client.operations.list(overdue=True)] == [boot.server_id]
    assert await cloud.client.operations.list(overdue=False) == []
    spawn.go_on.set()


async def test_a_project_sees_and_decides_its_own(cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    other = await Client.connect(cloud.settings, project="o'th\\er")

    assert await other.operations.list() == []
    assert [one.server_id for one in await other.operations.list(all_projects=True)] == [boot.server_id]
    with pytest.raises(NotFound):
        await other.operations.retry(boot.server_id)
    with pytest.raises(NotFound):
        await other.operations.cancel(boot.server_id)
    assert (await cloud.progress(boot)).hold is not None


async def test_retry_is_taken_for_the_step_and_signed(cloud: Cloud) -> None:
    boot = await held_boot(cloud)

    decided = await cloud.client.operations.retry("web", note="the fire is out")

    assert (decided.operation, decided.step, decided.choice) == (OperationName.BOOT, "spawn", Choice.RETRY)
    assert decided.run_id == boot.run_id
    assert (await boot.result(LIMIT)).host == "sim-1"
    held = [e.step for e in await cloud.client.servers.events(boot.server_id) if e.step.name == "hold"]
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    assert [step.note for step in held if step.note and f"retry by {me}: the fire is out" in step.note]


async def test_move_takes_the_host_that_is_named(cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    with pytest.raises(NotFound):
        await cloud.client.operations.move(boot.server_id, host="sim-9")

    await cloud.client.operations.move(boot.server_id, host="sim-2", by="ann")

    assert (await boot.result(LIMIT)).host == "sim-2"


async def test_give_up_fails_the_operation(cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    await cloud.client.operations.give_up(boot.server_id)
    assert isinstance(await cloud.failure(boot), BuildFailed | OperationFailed)


async def test_every_operation_may_hold(cloud: Cloud) -> None:
    server = await cloud.booted()
    for name, step in (("stop", "stop_guest"), ("start", "start_guest"), ("reboot", "reboot_guest")):
        cloud.stage.fail(step, ON_FIRE)
        operation = await getattr(cloud.client.servers, name)(server.id, on_failure=OnFailure.HOLD)
        assert (await holding(operation)).step == step
        await cloud.client.operations.retry(server.id)
        await operation.result(LIMIT)


async def test_cancel_undoes_what_holds_and_says_who_asked(cloud: Cloud) -> None:
    before = await cloud.world()
    boot = await held_boot(cloud)

    cancelled = await cloud.client.operations.cancel(boot.server_id, by="ann", note="not needed")

    assert cancelled.run_id == boot.run_id
    with pytest.raises(Cancelled):
        await cancelled.result(LIMIT)
    fault = (await cloud.client.servers.show(boot.server_id)).fault
    assert fault is not None
    assert "by ann: not needed" in fault.error.message
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


async def test_there_is_nothing_to_decide(cloud: Cloud) -> None:
    spawn = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await spawn.reached.wait()
    for decide in (cloud.client.operations.retry, cloud.client.operations.move, cloud.client.operations.give_up):
        with pytest.raises(InvalidState, match="does not hold") as caught:
            await decide(boot.server_id)
        assert caught.value.remedy
    spawn.go_on.set()
    await boot.result(LIMIT)

    with pytest.raises(InvalidState, match="no operation runs"):
        await cloud.client.operations.cancel(boot.server_id)
    for decide in (cloud.client.operations.retry, cloud.client.operations.move, cloud.client.operations.give_up):
        with pytest.raises(InvalidState, match="no operation runs"):
            await decide(boot.server_id)
        with pytest.raises(InvalidState, match="no operation runs"):
            await decide(str(uuid4()))
        with pytest.raises(NotFound, match="no server is named"):
            await decide("nobody")


async def test_a_decision_that_makes_no_sense_is_refused_before_it_is_sent(cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    for words in ({"note": "two\nlines"}, {"note": "x" * 1001}, {"by": " ann"}):
        with pytest.raises(InvalidRequest) as caught:
            await cloud.client.operations.retry(boot.server_id, **words)
        assert caught.value.detail.field in words
        with pytest.raises(InvalidRequest):
            await cloud.client.operations.cancel(boot.server_id, **words)
    with pytest.raises(InvalidRequest):
        await cloud.client.operations.list(limit=0)


async def test_of_two_decisions_one_is_taken(cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    answers = await asyncio.gather(
        cloud.client.operations.retry(boot.server_id),
        cloud.client.operations.retry(boot.server_id),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, InvalidState) for answer in answers) == 1, answers
    await boot.result(LIMIT)


async def test_json_that_a_person_wrote_is_a_decision(cloud: Cloud) -> None:
    """As the Temporal UI sends what is typed into its form."""
    boot = await held_boot(cloud)
    plain = await temporalio.client.Client.connect(
        cloud.settings.temporal.address,
        namespace=cloud.settings.temporal.namespace,
        data_converter=DataConverter(payload_codec=Reading(load_keys(cloud.settings))),
    )
    handle = plain.get_workflow_handle(f"server:{boot.server_id}")

    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update("decide", typed('{"choice": "give-up", "host": "sim-2"}'))
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidRequest"
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update("decide", typed('{"choice": "retry"}'))
    assert "by: is empty" in str(caught.value.cause)
    for nonsense in ('{"choice": "dance"}', "{}", '"retry"'):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("decide", typed(nonsense))
        assert (await cloud.progress(boot)).hold is not None

    decided = await handle.execute_update("decide", typed('{"choice": "retry", "by": "me"}'))

    assert (decided["choice"], decided["step"]) == ("retry", "spawn")
    assert (await boot.result(LIMIT)).status == "ACTIVE"
    steps = [event.step for event in await cloud.client.servers.events(boot.server_id)]
    assert any(step.note and "retry by me" in step.note for step in steps)
    assert all(step.status is not StepStatus.HELD for step in steps)


class Reading(EncryptionCodec):
    """Decrypts what it reads, as a UI with a codec endpoint, and writes in clear."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads as they are."""
        return list(payloads)


def typed(text: str) -> RawValue:
    """JSON as a form has it: `json/plain`, made by no library of ours."""
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text.encode()))
