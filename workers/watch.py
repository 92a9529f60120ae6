"""The one workflow that watches over the hosts. Every control worker sees to it that it runs."""

import asyncio
import logging
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from hostler.contract.host_work import WATCH_HOSTS, WatchState
from hostler.contract.names import CONTROL_QUEUE
from hostler.settings import HostFailureSettings

logger = logging.getLogger(__name__)

EVERY = timedelta(minutes=1)


async def ensure_watch(client: Client, settings: HostFailureSettings) -> None:
    """Have it run, unless the settings say not to: then one that runs ends by itself when it looks."""
    if not settings.interval:
        return
    await client.start_workflow(
        WATCH_HOSTS,
        WatchState(),
        id=WATCH_HOSTS,
        task_queue=CONTROL_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="sees when a host falls silent",
    )


async def keep_watched(client: Client, settings: HostFailureSettings, every: timedelta = EVERY) -> None:
    """Start it again whenever it is not there: somebody may have terminated it, or Temporal have lost what it knew."""
    while True:
        try:
            await ensure_watch(client, settings)
        except RPCError as error:
            logger.warning("could not see to it that somebody watches over the hosts: %s", error)
        await asyncio.sleep(every.total_seconds())
