"""Operations: begun, joined, followed, pre-empted, refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from hostler import Client, Operation
from hostler.contract.errors import (
    BuildFailed,
    Cancelled,
    InvalidRequest,
    NotFound,
    Preempted,
    ServerBusy,
)
from hostler.contract.servers import OperationName, Progress, StepStatus
from tests.hostler.peers import cloud


@pytest.fixture
async def client(temporal_server: str, namespace: str) -> AsyncIterator[Client]:
    """A client of a cloud whose workers run."""
    async with (
        cloud(temporal_server, namespace),
        await Client.connect(address=temporal_server, namespace=namespace) as client,
    ):
        yield client


async def running(operation: Operation) -> Progress:
    """Its progress, once its step runs with a note of how far it is."""
    async for progress in operation.follow():
        if progress.steps[0].status is StepStatus.RUNNING and progress.steps[0].note:
            return progress
    raise AssertionError("it ended before")


async def test_boot_answers_then_ends(client: Client) -> None:
    operation = await client.servers.boot("web", flavor="tiny", image="demo", metadata={"b": "2", "a": "1"})

    assert operation.operation is OperationName.BOOT
    server = await operation.result()
    assert (server.id, server.status, server.metadata) == (operation.server_id, "ACTIVE", {"a": "1", "b": "2"})


async def test_follow_shows_each_change_and_ends(client: Client) -> None:
    operation = await client.servers.boot("web", flavor="tiny", image="demo")

    seen = [progress async for progress in operation.follow()]

    assert seen[-1].done
    assert seen[-1].steps[0].status is StepStatus.DONE
    assert not any(progress.done for progress in seen[:-1])
    assert all(before != after for before, after in pairwise(seen))


async def test_follow_shows_what_only_temporal_knows_of_a_step(client: Client) -> None:
    flaky = await client.servers.boot("web", flavor="flaky", image="demo")
    steps = [progress.steps[0] async for progress in flaky.follow()]
    assert any(s.retries and s.error == "the disk is not there yet" for s in steps)
    assert (await flaky.result()).status == "ACTIVE"

    slow = await client.servers.boot("web", flavor="slow", image="demo")
    assert (await running(slow)).steps[0].note == "40 MiB of 128 MiB"


async def test_the_same_uuid_joins_the_running_boot(client: Client) -> None:
    server_id = str(uuid4())
    first = await client.servers.boot("web", flavor="slow", image="demo", server_id=server_id)
    second = await client.servers.boot("web", flavor="slow", image="demo", server_id=server_id)

    assert first.run_id == second.run_id


async def test_delete_preempts_a_boot(client: Client) -> None:
    boot = await client.servers.boot("web", flavor="slow", image="demo")
    await running(boot)

    delete = await client.servers.delete(boot.server_id)

    assert delete.preempts is OperationName.BOOT
    with pytest.raises(Preempted):
        await boot.result(timedelta(seconds=20))
    assert (await delete.result(timedelta(seconds=20))).status == "DELETED"
    operations = [progress.operation async for progress in delete.follow()]
    assert list(dict.fromkeys(operations)) == [OperationName.BOOT, OperationName.DELETE]
    assert [p.operation async for p in boot.follow()] == [OperationName.BOOT]
    latest = await client.servers.operation(boot.server_id)
    assert latest.operation is OperationName.DELETE


async def test_what_is_refused_is_typed(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        await client.servers.boot("web", flavor="missing", image="demo")
    assert (caught.value.detail.field, caught.value.remedy) == ("flavor", "list them")

    with pytest.raises(NotFound):
        await client.servers.start(str(uuid4()))
    with pytest.raises(InvalidRequest):
        await client.servers.boot("we\nb", flavor="tiny", image="demo")


async def test_another_operation_on_a_busy_server_is_refused(client: Client) -> None:
    boot = await client.servers.boot("web", flavor="slow", image="demo")
    with pytest.raises(ServerBusy):
        await client.servers.stop(boot.server_id)


async def test_a_failed_operation_says_why(client: Client) -> None:
    operation = await client.servers.boot("web", flavor="broken", image="demo")
    with pytest.raises(BuildFailed) as caught:
        await operation.result()
    assert [a.host for a in caught.value.detail.attempts] == ["node-1", "node-2"]
    assert caught.value.detail.filters[0].filter == "RamFilter"


async def test_cancel(client: Client) -> None:
    operation = await client.servers.boot("web", flavor="slow", image="demo")
    await running(operation)
    await operation.cancel()
    with pytest.raises(Cancelled):
        await operation.result()


async def test_a_wait_that_ends_early_leaves_the_operation_running(client: Client) -> None:
    operation = await client.servers.boot("web", flavor="slow", image="demo")
    with pytest.raises(TimeoutError):
        await operation.result(timedelta(milliseconds=200))
    assert (await running(operation)).operation == OperationName.BOOT


async def test_nobody_remembers_an_operation(client: Client) -> None:
    with pytest.raises(NotFound, match="remembers no operation"):
        await client.servers.operation(str(uuid4()))


async def test_follow_outlives_the_control_worker(temporal_server: str, namespace: str) -> None:
    async with await Client.connect(address=temporal_server, namespace=namespace) as client:
        async with cloud(temporal_server, namespace):
            operation = await client.servers.boot("web", flavor="flaky", image="demo")
            seen: list[Progress] = []

            async def follow() -> None:
                seen.extend([progress async for progress in operation.follow()])

            follower = asyncio.create_task(follow())
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        async with cloud(temporal_server, namespace):
            async with asyncio.timeout(60):
                await follower
    assert seen[-1].done
    assert seen[-1].steps[0].status is StepStatus.DONE
