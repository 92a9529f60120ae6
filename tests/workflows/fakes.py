"""Activities that only record that they were called, for tests of what the workflows decide and when."""

import asyncio
import importlib
import inspect
import pkgutil
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

import activities.interfaces
import workflows.block_devices
import workflows.boot
from activities.interfaces.block_devices import HostVolumes, VolumeWork
from activities.interfaces.guests import Claims, Guests
from activities.interfaces.images import HostImages
from activities.interfaces.ports import HostPorts
from activities.interfaces.scheduling import Placement, Schedule, Story
from activities.interfaces.servers import BootPlan, HostRef, Limits
from hostler.contract.errors import HostlerError, from_application_error
from hostler.contract.guests import DiskKind, GuestDisk, ImageRef, PortBinding, VolumeConnection, VolumeSpec
from hostler.contract.names import CONTROL_QUEUE, host_queue, server_workflow_id
from hostler.contract.resources import DiskFormat, Flavor
from hostler.contract.servers import BootRequest, NetworkRequest, Progress, Server, Step, VifPlugged
from hostler.contract.states import PowerState, VmState
from tests.sandbox import workflow_runner
from tests.stage import Held
from workers.control import WORKFLOWS
from workers.standstill import patient
from workflows.boot import PLANNED
from workflows.plugging import WAIT_VIF_PLUGGED
from workflows.steps import StepDefinition

ON_HOSTS = (Claims, Guests, HostImages, HostPorts, HostVolumes)
HOSTS = [HostRef(id=f"00000000-0000-4000-8000-00000000000{number}", name=f"node-{number}") for number in (1, 2, 3)]
VOLUME_ID, PORT_ID = str(uuid4()), str(uuid4())


def methods_of(families: tuple[type, ...] | None) -> list[Callable[..., Any]]:
    """The methods of the interfaces that hosts implement, or of all others."""
    found = []
    for module in pkgutil.iter_modules(activities.interfaces.__path__):
        for value in vars(importlib.import_module(f"activities.interfaces.{module.name}")).values():
            if inspect.isabstract(value) and ((value in ON_HOSTS) if families else (value not in ON_HOSTS)):
                found += [getattr(value, name) for name in sorted(value.__abstractmethods__)]
    return list(dict.fromkeys(found))


@dataclass
class Fakes:
    """A cloud of three hosts, of which nothing is real. `calls` are (activity, host) as they began."""

    client: Client
    limits: Limits = field(default_factory=Limits)
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    plug_at: str | None = "spawn"
    _failures: dict[str, deque[BaseException]] = field(default_factory=dict)
    _holds: dict[str, deque[Held]] = field(default_factory=dict)
    _hosts: dict[str, Worker] = field(default_factory=dict)

    def fail(self, name: str, error: BaseException, *, times: int = 1) -> None:
        """Let the next calls fail."""
        self._failures.setdefault(name, deque()).extend([error] * times)

    def hold(self, name: str) -> Held:
        """Hold the next call until the test lets it go on."""
        held = Held()
        self._holds.setdefault(name, deque()).append(held)
        return held

    def names(self) -> list[str]:
        """The names of all calls, in order."""
        return [name for name, _ in self.calls]

    async def start_host(self, host: HostRef) -> None:
        """Start the worker of a host."""
        fakes = [self._fake(method, host) for method in methods_of(ON_HOSTS)]
        worker = Worker(self.client, task_queue=host_queue(host.id), activities=fakes, identity=host.name)
        self._hosts[host.name] = worker
        await worker.__aenter__()

    async def stop_host(self, name: str) -> None:
        """Stop it; returns when what it was doing has ended."""
        await self._hosts.pop(name).shutdown()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Fakes"]:
        """All workers."""
        async with AsyncExitStack() as stack:
            control = Worker(
                self.client,
                task_queue=CONTROL_QUEUE,
                workflows=WORKFLOWS,
                activities=[self._fake(method, None) for method in methods_of(None)],
                workflow_runner=workflow_runner(),
            )
            await stack.enter_async_context(patient(control))
            for host in HOSTS:
                await self.start_host(host)
            try:
                yield self
            finally:
                for name in list(self._hosts):
                    await self.stop_host(name)

    def _fake(self, method: Callable[..., Any], host: HostRef | None) -> Callable[..., Any]:
        name = method.__name__

        async def fake(call: Any) -> Any:
            self.calls.append((name, host.name if host else None))
            if waiting := self._holds.get(name):
                held = waiting.popleft()
                held.reached.set()
                await held.go_on.wait()
            if failures := self._failures.get(name):
                error = failures.popleft()
                raise error.to_application_error() if isinstance(error, HostlerError) else error
            if host and self.plug_at == name:
                await self._plug(host)
            return self._answer(name, call)

        fake.__annotations__ = get_type_hints(method)
        return activity.defn(name=name)(fake)

    async def _plug(self, host: HostRef) -> None:
        workflow_id = activity.info().workflow_id
        assert workflow_id is not None
        handle = self.client.get_workflow_handle(workflow_id)
        await handle.signal("vif_plugged", VifPlugged(port_id=PORT_ID, host_id=host.id))

    def _answer(self, name: str, call: Any) -> Any:
        answers: dict[str, Callable[[], Any]] = {
            "accept": lambda: a_plan(call.request, self.limits),
            "schedule": lambda: _place(call),
            "failing_steps": list,
            "explain": lambda: Story(considered=len(HOSTS), filters=[]),
            "allocate_ports": lambda: [a_port(call.server_id)],
            "prep_block_devices": lambda: [a_volume()],
            "export_volume": lambda: VolumeConnection(volume_id=VOLUME_ID, host="192.0.2.1", port=10810, export="x"),
            "resume_guest": lambda: PowerState.RUNNING,
            "activate": lambda: a_server(call.server_id, VmState.ACTIVE),
            "settle": lambda: a_server(call.server_id, call.vm_state or VmState.ERROR),
        }
        return answers[name]() if name in answers else None


def a_plan(request: BootRequest, limits: Limits) -> BootPlan:
    """An image, a port and a new volume."""
    image = ImageRef(id=str(uuid4()), disk_format=DiskFormat.RAW, size_bytes=1, virtual_size_bytes=1, checksum="x")
    root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=2**30, bootable=True, image=image)
    data = GuestDisk(kind=DiskKind.DATA, device="vdb", size_bytes=2**30, volume_id=VOLUME_ID, create=True)
    return BootPlan(
        server_id=request.server_id,
        name=request.name,
        project=request.project,
        flavor=Flavor(id=str(uuid4()), name="tiny", vcpus=1, ram_mib=128, disk_gib=1),
        image=image,
        networks=[NetworkRequest(network=str(uuid4()))],
        disks=[root, data],
        limits=limits.model_copy(update={"max_attempts": request.max_attempts or limits.max_attempts}),
    )


def a_port(server_id: str) -> PortBinding:
    """The one port."""
    return PortBinding(
        port_id=PORT_ID,
        server_id=server_id,
        network_id=str(uuid4()),
        network="net",
        mac="fa:16:3e:00:00:01",
        ip="10.0.0.2",
        prefix=24,
        gateway="10.0.0.1",
    )


def a_volume() -> VolumeWork:
    """The one volume, which the last host keeps."""
    return VolumeWork(volume_id=VOLUME_ID, host=HOSTS[-1], create=VolumeSpec(volume_id=VOLUME_ID, size_gib=1))


def a_server(server_id: str, vm_state: VmState) -> Server:
    """The server as it ends."""
    return Server(id=server_id, name="web", project="default", status=vm_state, vm_state=vm_state, flavor="tiny")


def _place(call: Schedule) -> Placement:
    left = [host for host in HOSTS if host.id not in call.excluded]
    return Placement(host=left[0], alternates=[host.id for host in left[1:]])


def a_request(**changes: Any) -> BootRequest:
    """A boot."""
    server_id = str(uuid4())
    values = {"server_id": server_id, "request_id": server_id, "name": "web", "flavor": "tiny", "image": "demo"}
    return BootRequest(**values | changes)


async def released(held: Held, meanwhile: Any) -> None:
    """Let it go on while `meanwhile` waits for it."""
    waiting = asyncio.ensure_future(meanwhile)
    held.go_on.set()
    await waiting


UNDOS = {
    step.name: step.undo.__name__
    for module in (workflows.boot, workflows.block_devices)
    for step in vars(module).values()
    if isinstance(step, StepDefinition) and step.undo is not None
}
# What stays when the host changes, and so is undone after all that is bound to the host.
KEPT = ("allocate_ports", "prep_block_devices", "create_volume_data", "export_volume")
STEPS = [*(step for step in PLANNED if step not in ("accept", WAIT_VIF_PLUGGED)), "set_task_state", *KEPT[2:]]
# `activate` is past the point of no return: it is neither given up nor interrupted.
INTERRUPTIBLE = [step for step in STEPS if step != "activate"]


Boot = WorkflowHandle[Any, Server]


async def boot(fakes: Fakes, request: BootRequest | None = None) -> Boot:
    """Begin to build a server."""
    request = request or a_request()
    return await fakes.client.start_workflow(
        "boot", request, id=server_workflow_id(request.server_id), task_queue=CONTROL_QUEUE, result_type=Server
    )


async def failure(handle: Boot) -> BaseException | None:
    """What it failed with."""
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause = caught.value.cause
    return (from_application_error(cause) or cause) if isinstance(cause, ApplicationError) else cause


async def steps(handle: Boot) -> list[Step]:
    """Its steps, in the order in which they began."""
    progress: Progress = await handle.query("progress", result_type=Progress)
    return progress.steps


async def check_undone(fakes: Fakes, handle: Boot) -> None:
    """Exactly what was begun has been undone, last first: what is bound to the host, then the rest."""
    begun = [step.name for step in await steps(handle) if step.name in UNDOS]
    bound = [UNDOS[name] for name in reversed(begun) if name not in KEPT]
    kept = [UNDOS[name] for name in reversed(begun) if name in KEPT]
    assert [name for name in fakes.names() if name in UNDOS.values()] == bound + kept
    assert fakes.names()[-1] == "settle"
