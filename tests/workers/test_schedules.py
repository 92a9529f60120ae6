"""The audit's Schedule: there from the first control worker on, as often as the settings say, and it works."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from temporalio.client import Client, ScheduleDescription, ScheduleOverlapPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from hostler.contract.audit import AUDIT
from hostler.contract.errors import NotFound
from hostler.settings import AuditSettings
from tests.cloud import LIMIT, Cloud
from tests.workflows.conftest import cloud as cloud
from tests.workflows.conftest import start_cloud as start_cloud
from workers.schedules import ensure_audit_schedule


@pytest.fixture
async def temporal(temporal_server: str, namespace: str) -> Client:
    """A client of an empty namespace."""
    return await Client.connect(temporal_server, namespace=namespace, data_converter=pydantic_data_converter)


async def described(temporal: Client) -> ScheduleDescription:
    """The Schedule as it is now."""
    return await temporal.get_schedule_handle(AUDIT).describe()


def every(minutes: int) -> AuditSettings:
    """An audit every so many minutes."""
    return AuditSettings(interval=timedelta(minutes=minutes))


def intervals(description: ScheduleDescription) -> list[timedelta]:
    """How often it runs."""
    return [interval.every for interval in description.schedule.spec.intervals]


async def test_workers_that_start_at_once_make_one_schedule(temporal: Client) -> None:
    await asyncio.gather(*(ensure_audit_schedule(temporal, every(10)) for _ in range(5)))
    description = await described(temporal)
    assert intervals(description) == [timedelta(minutes=10)]
    assert description.schedule.policy.overlap is ScheduleOverlapPolicy.SKIP


async def test_another_interval_takes_the_place_of_the_former(temporal: Client) -> None:
    await ensure_audit_schedule(temporal, every(10))
    await ensure_audit_schedule(temporal, every(3))
    assert intervals(await described(temporal)) == [timedelta(minutes=3)]


async def test_a_schedule_that_an_operator_paused_stays_paused(temporal: Client) -> None:
    await ensure_audit_schedule(temporal, every(10))
    await temporal.get_schedule_handle(AUDIT).pause(note="we repair the storage")
    for minutes in (10, 3):
        await ensure_audit_schedule(temporal, every(minutes))
        state = (await described(temporal)).schedule.state
        assert (state.paused, state.note) == (True, "we repair the storage")


async def test_without_an_interval_there_is_no_schedule(temporal: Client) -> None:
    await ensure_audit_schedule(temporal, every(0))
    await ensure_audit_schedule(temporal, every(10))
    await ensure_audit_schedule(temporal, every(0))
    with pytest.raises(RPCError, match="not found"):
        await described(temporal)


async def test_what_a_scheduled_audit_found_can_be_asked_for(cloud: Cloud) -> None:
    with pytest.raises(NotFound, match="does not run by itself"):
        await cloud.client.audit.last()
    await ensure_audit_schedule(cloud.temporal, AuditSettings(interval=timedelta(seconds=1)))

    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            with suppress(NotFound):
                report = await cloud.client.audit.last()
                break
            await asyncio.sleep(0.1)

    assert (report.hosts, report.findings, report.heal) == (2, [], True)
