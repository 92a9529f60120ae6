"""The host worker: serves the activities that touch one machine. It holds no database and no cloud-wide credentials."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.boundary import ErrorBoundary
from activities.last_try import LastTry
from activities.telemetry import ActivityTelemetry
from hostler.client.errors import from_failure
from hostler.contract.calls import REGISTER_HOST
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.names import CONTROL_QUEUE, HOST, host_queue, host_workflow_id, server_workflow_id
from hostler.contract.servers import VifPlugged
from hostler.settings import HostSettings, Settings
from workers.admission import admit, is_admitted
from workers.host_identity import forget_admission
from workers.machine import Machine, make_machines
from workers.metrics import meter_of
from workers.power_events import forward_power
from workers.signals import stop_event
from workers.temporal import connect
from workers.unknown_steps import refuse_unknown

logger = logging.getLogger(__name__)

DRAIN = timedelta(seconds=8)
HEARTBEAT_THROTTLE = timedelta(seconds=2)
RETRY_SECONDS = 2.0
# Every poller is a call that waits at the server; a thousand simulated hosts get along with one each.
POLLERS, POLLERS_OF_MANY = 5, 1
MANY = 20
REGISTRATIONS_AT_ONCE = 20
RESTORE_SECONDS, SAY_SECONDS = 5.0, 60.0
LONG_STEPS = 200
"""Copies and snapshots that go on for hours beside the others, which would else wait, and take the host for silent."""


async def run(settings: Settings) -> None:
    """Work until asked to stop.

    Raises:
        InvalidRequest: it is given the database, which a host must not hold.
        Unavailable: libvirt does not answer.
        Conflict: another machine is this host.
    """
    refuse_database(settings)
    stop = stop_event()
    client = None
    if settings.host.driver == "libvirt" and not is_admitted(settings.state_dir):
        client = await connect(settings, settings.host.name, "host")
        await admit(client, settings.state_dir)  # before anything here is touched
    machines = await make_machines(settings)
    client = client or await connect(settings, machines[0].name if len(machines) == 1 else "simulated hosts", "host")
    async with serve(client, settings, machines) as duties:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, duties], return_when=asyncio.FIRST_COMPLETED)
        if duties.done():
            duties.result()
        logger.info("draining")


def refuse_database(settings: Settings) -> None:
    """See that this process was not given what only control workers may have.

    Raises:
        InvalidRequest: it was.
    """
    if settings.database.url is not None:
        raise InvalidRequest(
            "a host worker must not hold the database's URL: who breaks into a host would have the whole cloud",
            field="database.url",
            remedy="take database.url out of this machine's settings file and HOSTLER_DATABASE__URL out of the "
            "worker's environment",
        )


@asynccontextmanager
async def serve(client: Client, settings: Settings, machines: list[Machine]) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the machines' queues, register each, and pass their events on.

    Yields the task that does the latter; it ends when one of it fails.
    """
    async with AsyncExitStack() as stack:
        for machine in machines:
            stack.push_async_callback(machine.close)
            await stack.enter_async_context(host_worker(client, settings.host, machine, len(machines)))
        turns = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)
        duties = asyncio.create_task(_all([duty for one in machines for duty in _duties(client, one, turns)]))
        stack.push_async_callback(_ended, duties)
        yield duties


def host_worker(client: Client, settings: HostSettings, machine: Machine, machines: int) -> Worker:
    """The worker of one machine, not yet running."""
    return Worker(
        client,
        task_queue=host_queue(machine.id),
        activities=[*machine.activities(), refuse_unknown(machine.name)],
        identity=machine.name,
        max_concurrent_activities=settings.concurrency + LONG_STEPS,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS if machines < MANY else POLLERS_OF_MANY),
        interceptors=[ActivityTelemetry(meter_of(client), machine.name), ErrorBoundary(), LastTry()],
        graceful_shutdown_timeout=DRAIN,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )


def _duties(client: Client, machine: Machine, turns: asyncio.Semaphore) -> list[Coroutine[Any, Any, None]]:
    return [
        register(client, machine, turns),
        forward_events(client, machine),
        forward_power(client, machine.id, machine.hypervisor),
        restore(machine),
    ]


async def _all(duties: list[Coroutine[Any, Any, None]]) -> None:
    """Do them at once; the first that fails ends the others."""
    await asyncio.gather(*duties)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def register(client: Client, machine: Machine, turns: asyncio.Semaphore) -> None:
    """Have the control plane know the host, and let it do what it owes; again until that succeeds.

    Raises:
        Conflict: another machine is this host.
    """
    host = machine.registration()
    while True:
        try:
            async with turns:
                await client.execute_workflow(
                    REGISTER_HOST,
                    host,
                    id=host_workflow_id(host.id),
                    task_queue=CONTROL_QUEUE,
                    id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
                    static_summary=f"register host {host.name}",
                    search_attributes=TypedSearchAttributes([SearchAttributePair(HOST, host.name)]),
                )
            logger.info("registered", extra={"host": host.name})
            return
        except (RPCError, WorkflowFailureError) as error:
            if isinstance(error, WorkflowFailureError) and isinstance(refusal := from_failure(error.cause), Conflict):
                forget_admission(machine.directory)
                raise refusal from error
            logger.warning("could not register: %s", error, extra={"host": host.name})
            await asyncio.sleep(RETRY_SECONDS)


async def forward_events(client: Client, machine: Machine) -> None:
    """Tell a server's operation that its port is plugged. One that no operation waits for is told to nobody."""
    async for event in machine.network.plugged():
        handle = client.get_workflow_handle(server_workflow_id(event.server_id))
        signal = VifPlugged(port_id=event.port_id, host_id=machine.id)
        while True:
            try:
                await handle.signal("vif_plugged", signal)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    logger.warning("could not pass on that a port is plugged: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
            break


async def restore(machine: Machine) -> None:
    """Let guests go on that something left half done keeps; says now and then which of them still hang."""
    said = -SAY_SECONDS
    while True:
        try:
            hanging = await machine.hypervisor.restore()
            if hanging and time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                for server_id, reason in hanging.items():
                    logger.warning("guest %s may hang: %s", server_id, reason, extra={"host": machine.name})
        except Exception:
            logger.exception("could not see to guests that may hang", extra={"host": machine.name})
        await asyncio.sleep(RESTORE_SECONDS)
