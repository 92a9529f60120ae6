"""The other side of the wire, as small as it can be: workflows and activities that keep the contract for the tests.

What a server's operation does is written in its flavor: see `Boot`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client as TemporalClient
from temporalio.common import RawValue, RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from hostler.codec import data_converter
from hostler.contract import calls
from hostler.contract.errors import (
    AttemptReport,
    BuildFailed,
    FilterReport,
    HostlerError,
    InvalidRequest,
    NotFound,
    ServerBusy,
)
from hostler.contract.names import CONTROL_QUEUE, host_queue
from hostler.contract.resources import (
    DiskFormat,
    Flavor,
    Host,
    Image,
    ImageCreate,
    ImageProperties,
    Inventory,
    KeyPair,
    Network,
    Quota,
    Volume,
    VolumeCreate,
    VolumeStatus,
)
from hostler.contract.servers import (
    Accepted,
    Address,
    BootRequest,
    DeleteRequest,
    Fault,
    Migration,
    MigrationKind,
    MigrationStatus,
    OperationCall,
    OperationName,
    OperationRequest,
    Progress,
    Server,
    ServerEvent,
    ServerMigration,
    StartRequest,
    Step,
    StepStatus,
)
from hostler.contract.states import PowerState, VmState
from hostler.settings import Settings, load
from workers.standstill import patient

HOST_ID = "0a0a0a0a-0000-4000-8000-00000000000a"
MOVED = Migration(
    id="0a0a0a0a-0000-4000-8000-00000000000b",
    kind=MigrationKind.RESIZE,
    status=MigrationStatus.FINISHED,
    source="node-1",
    target="node-2",
    old_flavor="tiny",
    new_flavor="small",
    created_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
)
FAILED = BuildFailed(
    "the build failed on all 2 hosts that were tried",
    hosts_considered=3,
    filters=[FilterReport(filter="RamFilter", removed=1, hosts=["node-3"], reason="64 MiB free, 512 wanted")],
    attempts=[
        AttemptReport(attempt=1, host="node-1", step="spawn", reason="no space left"),
        AttemptReport(attempt=2, host="node-2", step="claim_resources", reason="pinned CPUs are taken"),
    ],
)


def server_of(request: BootRequest, vm_state: VmState = VmState.ACTIVE) -> Server:
    """The server that a boot makes."""
    active = vm_state is VmState.ACTIVE
    return Server(
        id=request.server_id,
        name=request.name,
        project=request.project,
        status="ACTIVE" if active else "DELETED" if vm_state is VmState.DELETED else "ERROR",
        vm_state=vm_state,
        power_state=PowerState.RUNNING if active else PowerState.NOSTATE,
        flavor=request.flavor,
        image=request.image,
        host_id=HOST_ID if active else None,
        host="node-1" if active else None,
        addresses=[Address(network="private", network_id="n", port_id="p", ip="10.0.0.7", mac="fa:16:3e:00:00:01")],
        metadata=request.metadata,
        fault=None if active else Fault(created_at=datetime.now(UTC), error=FAILED.detail),
    )


@activity.defn
async def spawn(flavor: str) -> None:
    """Does as the flavor says: "slow" beats its heart until cancelled, "flaky" fails twice."""
    if flavor == "flaky" and activity.info().attempt < 3:
        raise RuntimeError("the disk is not there yet")
    while flavor == "slow":
        activity.heartbeat("40 MiB of 128 MiB")
        await asyncio.sleep(0.1)


class _Operation:
    def __init__(self, request: OperationRequest) -> None:
        self.request_ = request
        self.verdict: Accepted | HostlerError | None = None
        self.preempted_by: str | None = None
        self.task: asyncio.Task[Any] | None = None
        self.state = Progress(
            operation=OperationName(workflow.info().workflow_type),
            server_id=request.server_id,
            run_id=workflow.info().run_id,
            steps=[Step(name="spawn", status=StepStatus.PENDING)],
        )

    @workflow.update(name="request")
    async def request(self, call: OperationCall) -> Accepted:
        """The front door."""
        if call.request_id == self.request_.request_id:
            await workflow.wait_condition(lambda: self.verdict is not None)
            if isinstance(self.verdict, HostlerError):
                raise self.verdict.to_application_error()
            assert self.verdict is not None
            return self.verdict
        if call.operation is not OperationName.DELETE:
            raise ServerBusy("it runs a boot", field="server_id", value=call.server_id).to_application_error()
        self.preempted_by = call.request_id
        assert self.task is not None
        self.task.cancel()
        return self._accepted(OperationName.DELETE, preempts=OperationName(self.state.operation))

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where it stands."""
        return self.state

    def _accepted(self, operation: OperationName, preempts: OperationName | None = None) -> Accepted:
        return Accepted(
            operation=operation, server_id=self.state.server_id, run_id=self.state.run_id, preempts=preempts
        )

    async def _end(self, error: HostlerError) -> None:
        await workflow.wait_condition(workflow.all_handlers_finished)
        raise error.to_application_error()

    def _step(self, status: StepStatus, error: str | None = None) -> None:
        step = self.state.steps[0]
        times = {"started_at": step.started_at or workflow.now()}
        if status is not StepStatus.RUNNING:
            times["finished_at"] = workflow.now()
        update = {"status": status, "host": "node-1", "error": error, **times}
        self.state.steps = [step.model_copy(update=update)]


@workflow.defn(name="boot")
class Boot(_Operation):
    """Flavors: "tiny" works, "missing" is refused, "broken" and "unsuited" fail, "flaky" and "slow" as in `spawn`."""

    @workflow.init
    def __init__(self, request: BootRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: BootRequest) -> Server:
        """Boot."""
        if request.flavor == "missing":
            self.verdict = NotFound("no flavor is named 'missing'", field="flavor", value="missing", remedy="list them")
            await self._end(self.verdict)
        self._step(StepStatus.RUNNING)
        self.verdict = self._accepted(OperationName.BOOT)
        self.task = asyncio.create_task(self._spawn(request.flavor))
        try:
            await self.task
        except asyncio.CancelledError:
            self._step(StepStatus.UNDONE)
            await workflow.wait_condition(workflow.all_handlers_finished)
            if self.preempted_by is None:
                raise
            delete = DeleteRequest(server_id=request.server_id, request_id=self.preempted_by, project=request.project)
            workflow.continue_as_new(workflow="delete", args=[delete])
        if request.flavor in ("broken", "unsuited"):
            self._step(StepStatus.FAILED, error="no space left")
            await self._end(FAILED if request.flavor == "broken" else InvalidRequest("no host keeps volumes"))
        self._step(StepStatus.DONE)
        return server_of(request)

    async def _spawn(self, flavor: str) -> None:
        try:
            await workflow.execute_activity(
                spawn,
                flavor,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1),
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        except Exception as error:
            raise asyncio.CancelledError from error


@workflow.defn(name="delete")
class Delete(_Operation):
    """Deletes at once."""

    @workflow.init
    def __init__(self, request: DeleteRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: DeleteRequest) -> Server:
        """Delete."""
        self.verdict = self._accepted(OperationName.DELETE)
        self._step(StepStatus.DONE)
        await workflow.wait_condition(workflow.all_handlers_finished)
        boot = BootRequest(server_id=request.server_id, request_id=request.server_id, name="web", flavor="tiny")
        return server_of(boot, VmState.DELETED)


@workflow.defn(name="start")
class Start(_Operation):
    """Finds no such server."""

    @workflow.init
    def __init__(self, request: StartRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: StartRequest) -> Server:
        """Start."""
        self.verdict = NotFound(f"no server has the UUID {request.server_id}", field="server_id")
        await self._end(self.verdict)
        raise AssertionError("unreachable")


@workflow.defn(dynamic=True)
class Anything(_Operation):
    """Any other operation: done at once. What was asked of it is in its history, where `tests.hostler.sent` reads it.

    A resize leaves the server as one that waits to be confirmed.
    """

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        super().__init__(workflow.payload_converter().from_payload(args[0].payload, OperationRequest))

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Server:
        """Do nothing."""
        operation, request = OperationName(self.state.operation), self.request_
        self.verdict = self._accepted(operation)
        self._step(StepStatus.DONE)
        await workflow.wait_condition(workflow.all_handlers_finished)
        boot = BootRequest(server_id=request.server_id, request_id=request.server_id, name="web", flavor="tiny")
        migration = MOVED if operation is OperationName.RESIZE else None
        state = VmState.RESIZED if migration else VmState.ACTIVE
        return server_of(boot).model_copy(update={"vm_state": state, "migration": migration})


@activity.defn
async def inspect(request: ImageCreate) -> None:
    """Takes a while, and says how far it is."""
    for percent in (10, 60):
        activity.heartbeat(f"{percent} %")
        await asyncio.sleep(1.2)


@workflow.defn(name=calls.CREATE_IMAGE)
class CreateImage:
    """An import."""

    @workflow.run
    async def run(self, request: ImageCreate) -> Image:
        """Import."""
        await workflow.execute_activity(inspect, request, start_to_close_timeout=timedelta(minutes=1))
        return Image(id=request.id, name=request.name, status="active", disk_format=DiskFormat.QCOW2)


@workflow.defn(name=calls.CREATE_VOLUME)
class CreateVolume:
    """A volume, or none when it is too large."""

    @workflow.run
    async def run(self, request: VolumeCreate) -> Volume:
        """Create."""
        if request.size_gib > 100:
            raise BuildFailed("no host has the room").to_application_error()
        return Volume(id=request.id, name=request.name, size_gib=request.size_gib, status=VolumeStatus.AVAILABLE)


class Catalogue:
    """The calls, answered from memory."""

    def __init__(self) -> None:
        inventory = Inventory(vcpus=8, ram_mib=16384, disk_gib=100, architecture="x86_64", hypervisor_type="qemu")
        self.host = Host(id=HOST_ID, name="node-1", zone="nova", up=True, enabled=True, inventory=inventory)
        self.flavors: dict[str, Flavor] = {}
        self.keypairs: dict[str, KeyPair] = {}
        self.networks: dict[str, Network] = {}
        self.servers: list[Server] = []
        self.migrations: list[ServerMigration] = []
        self.asked_migrations: list[calls.MigrationFilter] = []
        self.quota = Quota(used_servers=2)

    def activities(self) -> list[Callable[..., Any]]:
        """All of them."""

        async def list_servers(wanted: calls.ServerFilter) -> list[Server]:
            return [s for s in self.servers if wanted.name in (None, s.name)]

        async def show_server(ref: calls.Ref) -> Server:
            for server in self.servers:
                if server.id == ref.ref:
                    return server
            raise NotFound(f"no server {ref.ref!r}", field="server", value=ref.ref).to_application_error()

        async def set_server(change: calls.ServerMetadata) -> Server:
            server = await show_server(change)
            server.metadata = change.applied(server.metadata)
            return server

        async def list_events(ref: calls.Ref) -> list[ServerEvent]:
            step = Step(name="spawn", status=StepStatus.DONE, host="node-1", started_at=datetime.now(UTC))
            return [ServerEvent(operation=OperationName.BOOT, run_id="run", step=step)]

        async def list_migrations(wanted: calls.MigrationFilter) -> list[ServerMigration]:
            self.asked_migrations.append(wanted)
            ids = [move.id for move in self.migrations]
            first = ids.index(wanted.after) + 1 if wanted.after else 0
            return self.migrations[first : first + wanted.limit]

        async def create_flavor(flavor: Flavor) -> Flavor:
            return self.flavors.setdefault(flavor.name, flavor)

        async def list_flavors(_: calls.Filter) -> list[Flavor]:
            return list(self.flavors.values())

        async def show_flavor(ref: calls.Ref) -> Flavor:
            if ref.ref not in self.flavors:
                raise NotFound(f"no flavor {ref.ref!r}", field="flavor", value=ref.ref).to_application_error()
            return self.flavors[ref.ref]

        async def delete_flavor(ref: calls.Ref) -> calls.Nothing:
            del self.flavors[ref.ref]
            return calls.Nothing()

        async def create_network(network: Network) -> Network:
            return self.networks.setdefault(network.name, network)

        async def create_keypair(keypair: KeyPair) -> KeyPair:
            return self.keypairs.setdefault(keypair.name, keypair)

        async def list_hosts(_: calls.Nothing) -> list[Host]:
            return [self.host]

        async def show_host(_: calls.Ref) -> Host:
            return self.host

        async def new_machine(_: calls.Ref) -> Host:
            self.host = self.host.model_copy(update={"owes": []})
            return self.host

        async def declare_down(said: calls.HostDown) -> Host:
            update = {
                "up": False,
                "down_since": datetime(2026, 7, 1, 12, tzinfo=UTC),
                "down_reason": said.reason,
                "fenced": said.fenced,
            }
            self.host = self.host.model_copy(update=update)
            return self.host

        async def set_host(state: calls.HostState) -> Host:
            update = {"enabled": state.enabled, "disabled_reason": state.reason}
            self.host = self.host.model_copy(update=update)
            return self.host

        async def show_quota(_: calls.Filter) -> Quota:
            return self.quota

        async def set_quota(quota: Quota) -> Quota:
            self.quota = quota
            return quota

        async def show_image(ref: calls.Ref) -> Image:
            properties = ImageProperties(image_type="backup", backup_type="daily", instance_uuid=HOST_ID)
            return Image(id=HOST_ID, name=ref.ref, status="active", disk_format=DiskFormat.QCOW2, properties=properties)

        async def list_images(_: calls.Filter) -> list[Image]:
            raise RuntimeError("the database is on fire")

        async def console_log(request: calls.ConsoleRequest) -> str:
            return f"login of {request.server_id}\n"

        functions: list[Callable[..., Any]] = [f for f in locals().values() if asyncio.iscoroutinefunction(f)]
        return [activity.defn(f) for f in functions]


@asynccontextmanager
async def cloud(
    address: str, namespace: str, catalogue: Catalogue | None = None, settings: Settings | None = None
) -> AsyncIterator[Catalogue]:
    """A control worker and the worker of one host, until the context ends."""
    catalogue = catalogue or Catalogue()
    client = await TemporalClient.connect(
        address, namespace=namespace, data_converter=data_converter(settings or load())
    )
    answers = catalogue.activities()
    control = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[Boot, Delete, Start, Anything, CreateImage, CreateVolume],
        activities=[*answers, spawn, inspect],
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=timedelta(0),
    )
    host = Worker(client, task_queue=host_queue(HOST_ID), activities=answers)
    async with patient(control), host:
        yield catalogue
