"""Asks the control plane whether this machine may be the host that its state directory says it is."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from temporalio.client import ActivityFailureError, Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from hostler.client.errors import from_failure
from hostler.contract.calls import ADMIT_HOST, HostIdentity
from hostler.contract.errors import Conflict
from hostler.contract.names import CONTROL_QUEUE
from workers.host_identity import host_id, machine_id, note_admission, was_admitted

logger = logging.getLogger(__name__)

ANSWER = timedelta(seconds=20)
RETRY_SECONDS = 2.0


def is_admitted(directory: Path) -> bool:
    """Whether this machine was this host before, or cannot be told from others anyway."""
    machine = machine_id()
    return machine is None or was_admitted(directory, host_id(directory), machine)


async def admit(client: Client, directory: Path) -> None:
    """Return once the control plane has said yes; ask until it answers.

    Raises:
        Conflict: another machine is this host.
    """
    host, machine = host_id(directory), machine_id()
    if machine is None:
        return
    while True:
        try:
            await client.execute_activity(
                ADMIT_HOST.name,
                HostIdentity(id=host, machine_id=machine),
                id=f"{ADMIT_HOST.name}:{uuid4()}",
                task_queue=CONTROL_QUEUE,
                result_type=ADMIT_HOST.result,
                start_to_close_timeout=ANSWER,
                schedule_to_close_timeout=ANSWER,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=2)),
                summary=f"admit host {host}",
            )
        except (RPCError, ActivityFailureError) as error:
            if isinstance(error, ActivityFailureError) and isinstance(refusal := from_failure(error.cause), Conflict):
                raise refusal from error
            logger.warning("waiting for a control worker to admit this host: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            note_admission(directory, host, machine)
            return
