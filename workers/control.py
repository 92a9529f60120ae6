"""The control worker: all workflows, and the activities that touch the database, the scheduler or the image store."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.boundary import ErrorBoundary
from activities.control.audit.audit import Audit as AuditActivities
from activities.control.block_devices import BlockDevices
from activities.control.calls.aggregates import AggregateCalls
from activities.control.calls.flavors import FlavorCalls
from activities.control.calls.host_down import HostDownCalls
from activities.control.calls.hosts import HostCalls
from activities.control.calls.images import ImageCalls
from activities.control.calls.migrations import MigrationCalls
from activities.control.calls.networks import NetworkCalls
from activities.control.calls.projects import KeyPairCalls, QuotaCalls
from activities.control.calls.servers import ServerCalls
from activities.control.calls.volumes import VolumeCalls
from activities.control.evacuations import Evacuations
from activities.control.host_watch import HostWatch
from activities.control.host_work import HostWork
from activities.control.hosts import Hosts, host_ids, owing_hosts
from activities.control.images import Images
from activities.control.later import Asking
from activities.control.live_migrations import LiveMigrations
from activities.control.moves import Moves
from activities.control.ports import Ports
from activities.control.power import PowerReports
from activities.control.rebuilds import Rebuilds
from activities.control.runs import Runs
from activities.control.scheduling import Scheduling
from activities.control.servers import Servers
from activities.control.shelves import Shelves
from activities.control.snapshots import Snapshots
from activities.control.temporal import Temporal
from activities.interfaces.servers import HostRef
from activities.telemetry import ActivityTelemetry
from drivers.image.local import LocalImageStore
from hostler.contract.calls import REGISTER_HOST
from hostler.contract.errors import Unavailable
from hostler.contract.names import CONTROL_QUEUE, host_workflow_id
from hostler.contract.resources import HostRegistration
from hostler.encryption import load_keys
from hostler.settings import Settings
from models import Database, check_revision
from scheduler.liveness import Alive
from scheduler.scheduler import Scheduler
from workers.activities import methods
from workers.census import Census
from workers.gauges import keep_refreshing
from workers.liveness import Liveness
from workers.metrics import begin_at_zero, meter_of
from workers.schedules import ensure_audit_schedule
from workers.signals import stop_event
from workers.standstill import patient
from workers.temporal import connect
from workers.temporal_server import announce_key, ensure_search_attributes
from workers.watch import keep_watched
from workflows.audit import Audit
from workflows.backup import Backup
from workflows.boot import Boot
from workflows.confirm_resize import ConfirmResize
from workflows.delete import Delete
from workflows.drain_host import DrainHost
from workflows.evacuate import Evacuate
from workflows.host_failure import HostFailure
from workflows.image import CreateImage
from workflows.later import Later
from workflows.live_migrate import LiveMigrate
from workflows.migrate import Migrate
from workflows.operation import Operation
from workflows.reboot import Reboot
from workflows.rebuild import Rebuild
from workflows.register_host import RegisterHost
from workflows.resize import Resize
from workflows.revert_resize import RevertResize
from workflows.shelve import Shelve
from workflows.shelve_offload import ShelveOffload
from workflows.snapshot import Snapshot
from workflows.start import Start
from workflows.stop import Stop
from workflows.telemetry import OperationTelemetry
from workflows.unshelve import Unshelve
from workflows.volume import CreateVolume, DeleteVolume
from workflows.watch_hosts import WatchHosts

logger = logging.getLogger(__name__)

WORKFLOWS: list[type] = [
    *(Boot, Start, Stop, Reboot, Delete),
    *(Snapshot, Backup, Rebuild, Shelve, ShelveOffload, Unshelve),
    *(Resize, Migrate, LiveMigrate, Evacuate, ConfirmResize, RevertResize, Later),
    *(CreateImage, CreateVolume, DeleteVolume),
    *(RegisterHost, Audit, DrainHost, HostFailure, WatchHosts),
]
OPERATIONS = [kind.operation.value for kind in WORKFLOWS if issubclass(kind, Operation)]
THREADS = 20
DRAIN = timedelta(seconds=8)
NUDGE = timedelta(seconds=10)
RETRY_SECONDS = 1.0
# How long a workflow waits for the control worker that knows it, which may have died, before another takes over.
STICKY = timedelta(seconds=5)


def control_activities(
    client: Client, settings: Settings, database: Database, alive: Alive
) -> list[Callable[..., Any]]:
    """Every activity of the control worker."""
    store = LocalImageStore(settings.images_dir)
    temporal = Temporal(client, settings.timeouts.host_answer)
    families = [
        Servers(database, settings),
        Scheduling(database, Scheduler(database, alive, settings.scheduler)),
        Ports(database),
        BlockDevices(database, alive, settings.timeouts),
        Images(database, store),
        Snapshots(database, settings, store),
        Rebuilds(database, settings),
        Shelves(database, settings, store),
        Moves(database, settings),
        LiveMigrations(database, settings),
        Evacuations(database, settings, alive, temporal),
        Asking(database, client, settings),
        Hosts(database),
        Runs(temporal),
        AuditActivities(database, store, alive, temporal, settings.audit.heal),
        ServerCalls(database),
        MigrationCalls(database),
        FlavorCalls(database),
        ImageCalls(database, store, temporal),
        NetworkCalls(database),
        VolumeCalls(database),
        HostCalls(database, alive),
        HostDownCalls(database, alive, temporal),
        HostWork(database, alive, settings),
        HostWatch(database, alive, temporal, settings),
        AggregateCalls(database),
        PowerReports(database),
        QuotaCalls(database),
        KeyPairCalls(database),
    ]
    return [method for family in families for method in methods(family)]


def control_worker(
    client: Client,
    settings: Settings,
    database: Database,
    alive: Alive,
    more_workflows: Sequence[type] = (),
    more_activities: Sequence[Callable[..., Any]] = (),
) -> Worker:
    """The worker, not yet running. `more_...` is what else it shall serve, to be measured beside Hostler's own."""
    worker = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[*WORKFLOWS, *more_workflows],
        activities=[*control_activities(client, settings, database, alive), *more_activities],
        activity_executor=ThreadPoolExecutor(THREADS, thread_name_prefix="control"),
        max_concurrent_activities=THREADS,
        # The sandbox, which finds what is not deterministic, takes a quarter of a worker's time: tests replay in it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[ActivityTelemetry(meter_of(client)), OperationTelemetry(), ErrorBoundary()],
        graceful_shutdown_timeout=DRAIN,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        default_heartbeat_throttle_interval=timedelta(seconds=2),
    )
    return patient(worker)


async def run(settings: Settings) -> None:
    """Work until asked to stop.

    Raises:
        InvalidState: the database's schema is not the one that this code is written for.
    """
    stop = stop_event()
    database = Database(settings.database_url)
    await _check(database)
    client = await connect(settings, f"control-{os.getpid()}@{socket.gethostname()}", "control")
    await ensure_search_attributes(client)
    await ensure_audit_schedule(client, settings.audit)
    await announce_key(client, load_keys(settings))
    liveness = Liveness(client, settings.temporal.heartbeat_interval, _known_hosts(database))
    async with liveness, control_worker(client, settings, database, liveness.alive):
        logger.info("control worker ready")
        duties = [
            asyncio.create_task(nudge(Temporal(client, settings.timeouts.host_answer), database, liveness.alive)),
            asyncio.create_task(keep_watched(client, settings.host_failure)),
        ]
        if settings.metrics.control_port:
            begin_at_zero(client, OPERATIONS)
            census = Census(client, settings, database, liveness.alive, OPERATIONS)
            duties.append(asyncio.create_task(keep_refreshing(meter_of(client), census)))
        await stop.wait()
        logger.info("draining")
        for duty in duties:
            duty.cancel()
    database.close()


async def _check(database: Database) -> None:
    """Wait until the database answers, which may start after its workers, and see that it is what this code needs."""
    told = False
    while True:
        try:
            return await asyncio.to_thread(check_revision, database)
        except Unavailable as error:
            if not told:
                logger.warning("waiting for the database: %s", error)
                told = True
            await asyncio.sleep(RETRY_SECONDS)


async def nudge(temporal: Temporal, database: Database, alive: Alive, every: timedelta = NUDGE) -> None:
    """Let hosts that owe work and answer again do it: one that was only slow does not register anew by itself."""
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            await nudge_once(temporal, database, alive)
        except Exception:
            logger.exception("could not look for hosts that owe work")


async def nudge_once(temporal: Temporal, database: Database, alive: Alive) -> None:
    """What `nudge` does each time."""
    hosts = [host for host in await asyncio.to_thread(_owing, database) if host.id in alive()]
    await asyncio.gather(*(_ask_again(temporal, host, alive) for host in hosts))


async def _ask_again(temporal: Temporal, host: HostRegistration, alive: Alive) -> None:
    """Register it as it registered last, if it answers: one that has just died is taken to be up for a while.

    To register lifts the word that it is down, and that may be younger than the question.
    """
    try:
        if not await temporal.answers(HostRef(id=host.id, name=host.name)) or host.id not in alive():
            return
        await temporal.client.start_workflow(
            REGISTER_HOST,
            host,
            id=host_workflow_id(host.id),
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"host {host.name} does what it owes",
        )
    except (RPCError, WorkflowAlreadyStartedError) as error:
        logger.warning("could not ask host %s to do what it owes: %s", host.name, error)


def _owing(database: Database) -> list[HostRegistration]:
    with database.read() as session:
        return owing_hosts(session)


def _known_hosts(database: Database) -> Callable[[], list[str]]:
    def ids() -> list[str]:
        with database.read() as session:
            return host_ids(session)

    return ids
