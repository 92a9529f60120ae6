"""Has a person called, by the operator's command: once for each alarm, and beside the watch, which goes on looking."""

import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import ActivityIDReusePolicy, RetryPolicy
from temporalio.exceptions import ActivityAlreadyStartedError
from temporalio.service import RPCError

from activities.control.commands import OperatorsCommand
from activities.interfaces.host_watch import HostWatch
from hostler.contract.errors import HostlerError, Unavailable
from hostler.contract.host_work import RUNBOOK, Alarm
from hostler.contract.names import CONTROL_QUEUE

SILENCE = timedelta(seconds=20)
TRIED = timedelta(hours=1)
"""What silences hosts may be in the way of the call, too."""
RETRY = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5))
NAME = HostWatch.call_person.__name__

logger = logging.getLogger(__name__)


async def have_called(temporal: Client, timeout: timedelta, alarms: Sequence[Alarm]) -> list[str]:
    """Have a person called for each, if nobody was yet; the keys of those for which that is so now."""
    called = []
    for alarm in alarms:
        try:
            await temporal.start_activity(
                NAME,
                alarm,
                id=f"{NAME}:{alarm.key}",
                task_queue=CONTROL_QUEUE,
                start_to_close_timeout=timeout + SILENCE,
                heartbeat_timeout=SILENCE,
                schedule_to_close_timeout=TRIED,
                retry_policy=RETRY,
                id_reuse_policy=ActivityIDReusePolicy.REJECT_DUPLICATE,
                summary=alarm.host or alarm.kind,
            )
        except ActivityAlreadyStartedError:
            logger.debug("a person is called already: %s", alarm.message)
        except RPCError as error:
            logger.warning("a person is not called yet: %s; it is about this: %s", error, alarm.message)
            continue
        called.append(alarm.key)
    return called


async def call(command: Sequence[str], timeout: timedelta, alarm: Alarm) -> None:
    """Run the command with the alarm's kind and text, as its last arguments and in its environment.

    Raises:
        Unavailable: it failed, took too long, or cannot be run here: another control worker may be able to.
    """
    calling = OperatorsCommand(
        words=command,
        timeout=timeout,
        setting="host_failure.alarm_command",
        title="the alarm command",
        remedy="see why; hostler host failures says what a person is called for",
    )
    try:
        said = await calling.run([alarm.kind, _line(alarm.message)], dict(_told(alarm)), f"calls: {alarm.kind}")
    except HostlerError as error:
        logger.error("nobody was called: %s; it is about this: %s", error, alarm.message)
        raise Unavailable(error.detail.message, field=error.detail.field, remedy=error.remedy) from error
    logger.info("a person was called: %s; the alarm command says: %s", alarm.message, said or "nothing")


def _told(alarm: Alarm) -> Iterator[tuple[str, str]]:
    yield "HOSTLER_ALARM", alarm.kind
    yield "HOSTLER_ALARM_SINCE", f"{alarm.since:%Y-%m-%dT%H:%M:%SZ}"
    yield "HOSTLER_ALARM_MESSAGE", _line(alarm.message)
    yield "HOSTLER_RUNBOOK", RUNBOOK
    if alarm.host_id:
        yield "HOSTLER_HOST_NAME", _line(alarm.host)
        yield "HOSTLER_HOST_ID", alarm.host_id


def _line(text: str) -> str:
    """It may have what a command has printed: no argument takes a zero byte, and a message is one line."""
    return "".join(one if one.isprintable() else " " for one in text)
