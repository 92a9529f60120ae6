"""The Schedule that starts the audit. Every control worker sees to it at its start, so several may do so at once."""

import logging
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from hostler.contract.audit import AUDIT, AuditRequest
from hostler.contract.names import CONTROL_QUEUE
from hostler.settings import AuditSettings

logger = logging.getLogger(__name__)

NOTE = "Kept by the control workers: audit.interval says how often."
CATCH_UP = timedelta(minutes=1)
"""Audits that were missed for longer than this are not made up for: the next one sees it all."""


async def ensure_audit_schedule(client: Client, settings: AuditSettings) -> None:
    """Have the audit run every `settings.interval`, or not by itself where that is zero. A paused one stays paused."""
    handle = client.get_schedule_handle(AUDIT)
    if not settings.interval:
        await _delete(handle)
        return
    try:
        await client.create_schedule(AUDIT, _schedule(settings.interval))
        logger.info("the audit runs every %s", settings.interval)
    except ScheduleAlreadyRunningError:
        await handle.update(lambda found: _changed(found, settings.interval))


def _schedule(interval: timedelta, state: ScheduleState | None = None) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            AUDIT,
            AuditRequest(),
            id=AUDIT,
            task_queue=CONTROL_QUEUE,
            static_summary="compare what is with what should be",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
        state=state or ScheduleState(note=NOTE),
    )


def _changed(found: ScheduleUpdateInput, interval: timedelta) -> ScheduleUpdate | None:
    """The update, if the interval is another one; a schedule that changes begins its interval anew."""
    schedule = found.description.schedule
    if [spec.every for spec in schedule.spec.intervals] == [interval]:
        return None
    return ScheduleUpdate(_schedule(interval, schedule.state))


async def _delete(handle: ScheduleHandle) -> None:
    try:
        await handle.delete()
        logger.info("the audit no longer runs by itself")
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
