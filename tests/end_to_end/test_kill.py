"""Any process may be killed in the middle of a boot: the boot ends ACTIVE all the same."""

import asyncio

import pytest

from hostler import Client
from hostler.contract.servers import StepStatus
from tests.end_to_end.conftest import DevCloud

pytestmark = pytest.mark.real
TEMPORAL = ("start-dev",)
CONTROL = ("worker", "control")
HOST = ("worker", "host")


@pytest.mark.sampled
@pytest.mark.parametrize(
    "victims",
    [[CONTROL], [HOST], [TEMPORAL], [CONTROL, HOST, TEMPORAL]],
    ids=["control worker", "host worker", "temporal", "all three"],
)
async def test_a_boot_survives_sigkill_of(victims: list[tuple[str, ...]], client: Client, dev_cloud: DevCloud) -> None:
    operation = await client.servers.boot("survivor", flavor="tiny", image="demo", networks=["net"], host="sim-1")
    async with asyncio.timeout(60):
        async for progress in operation.follow():
            if any(step.name == "spawn" and step.status is StepStatus.RUNNING for step in progress.steps):
                break

    doomed = [process for victim in victims for process in dev_cloud.processes(*victim)]
    assert len(doomed) >= len(victims)
    for process in doomed:
        process.kill()

    async with asyncio.timeout(180):
        server = await operation.result()
    assert (server.status, server.host) == ("ACTIVE", "sim-1")
    await (await client.servers.delete(server.id)).result()
