"""Steps on the server's row, on the control worker."""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity

from hostler.contract.errors import ErrorDetail
from hostler.contract.guests import GuestDisk, ImageRef
from hostler.contract.resources import Flavor
from hostler.contract.servers import (
    BootRequest,
    Hold,
    MigrationKind,
    NetworkRequest,
    OnFailure,
    OperationName,
    Server,
    Step,
)
from hostler.contract.states import PowerState, TaskState, VmState


class ServerRef(BaseModel):
    """One server, for the operation that the run `run_id` carries out."""

    server_id: str
    run_id: str = ""


class AcceptBoot(BaseModel):
    """A boot that asks to be accepted."""

    request: BootRequest
    fingerprint: str
    run_id: str


class Limits(BaseModel):
    """The settings that bind one operation, fixed when it was accepted so that a replay sees the same.

    `overdue` is after how long it raises an alert, None never.
    """

    max_attempts: int = 3
    host_answer: timedelta = timedelta(seconds=20)
    vif_plugged: timedelta = timedelta(seconds=60)
    stop: timedelta = timedelta(seconds=60)
    on_failure: OnFailure = OnFailure.GIVE_UP
    hold: timedelta = timedelta(days=1)
    overdue: timedelta | None = None
    offload_after: timedelta = timedelta(0)


class BootPlan(BaseModel):
    """An accepted boot with every name resolved. `image` is the root disk's, where that is on the host."""

    server_id: str
    name: str
    project: str
    flavor: Flavor
    image: ImageRef | None = None
    networks: list[NetworkRequest] = []
    disks: list[GuestDisk] = []
    public_keys: dict[str, str] = {}
    limits: Limits = Limits()
    repeated: Server | None = None
    former_run_id: str | None = None


class SetTaskState(BaseModel):
    """Says what is being done to the server."""

    server_id: str
    run_id: str
    task_state: TaskState | None


class EventLog(BaseModel):
    """The steps of one operation, for the server's history."""

    server_id: str
    run_id: str
    operation: OperationName
    steps: list[Step]


class Note(BaseModel):
    """What happened to an operation that goes on: its steps so far, and what it waits for (None: nothing)."""

    hold: Hold | None = None
    events: EventLog


class Activate(BaseModel):
    """The server runs on `host_id`."""

    server_id: str
    run_id: str
    host_id: str
    power_state: PowerState
    events: EventLog


class Settle(BaseModel):
    """The operation ended otherwise: `error` becomes the server's fault where `vm_state` is ERROR.

    `keeps_others`: what is reserved on other hosts than the server's stays, for the server may have a guest there.
    """

    server_id: str
    run_id: str
    vm_state: VmState | None
    power_state: PowerState | None = None
    error: ErrorDetail | None = None
    keeps_others: bool = False
    events: EventLog


class Begin(BaseModel):
    """Compare and set: the server must be in one of `allowed`, free, and becomes `task_state`'s."""

    server_id: str
    project: str
    run_id: str
    operation: OperationName
    allowed: list[VmState]
    task_state: TaskState


class HostRef(BaseModel):
    """A host by its UUID, with the label that people read."""

    id: str
    name: str


class AttachedVolume(BaseModel):
    """A volume that a server uses, and the host that serves it."""

    volume_id: str
    host: HostRef | None
    discard: bool


class OpenMove(BaseModel):
    """A move that is not over. `source` keeps the former guest and claim, `former` is what the server was before.

    `finished`: the server waits to be confirmed or reverted; else its move was cut short. `handed_over`: its guest
    had left the source by then for sure, running.
    """

    source: HostRef
    kind: MigrationKind = MigrationKind.MIGRATION
    former: VmState
    finished: bool
    handed_over: bool = False


class Target(BaseModel):
    """A server that an operation has taken. `hosts` are all that may hold something of it, its own first.

    `down` are those of them that have been declared down, by UUID. `root_volume`: its root disk is a volume.
    """

    server_id: str
    name: str
    hosts: list[HostRef]
    down: list[str] = []
    port_ids: list[str] = []
    volumes: list[AttachedVolume] = []
    former: VmState
    move: OpenMove | None = None
    root_volume: bool = False
    shelved_image_id: str | None = None
    limits: Limits = Limits()


class Servers(ABC):
    """Owner of the server rows."""

    @activity.defn(name="accept")
    @abstractmethod
    def accept(self, call: AcceptBoot) -> BootPlan:
        """Validate, check the quota, resolve names and insert the row; a repeated request finds the former run."""

    @activity.defn(name="set_task_state")
    @abstractmethod
    def set_task_state(self, call: SetTaskState) -> None:
        """Show progress in the row, while `run_id` still holds the server."""

    @activity.defn(name="note")
    @abstractmethod
    def note(self, call: Note) -> None:
        """Show in the row and in the server's history that its operation holds, goes on, or takes long."""

    @activity.defn(name="activate")
    @abstractmethod
    def activate(self, call: Activate) -> Server:
        """The boot is done: ACTIVE on its host, volumes in use, history written."""

    @activity.defn(name="begin")
    @abstractmethod
    def begin(self, call: Begin) -> Target:
        """Take the server for an operation.

        Raises:
            NotFound, InvalidState, ServerBusy
        """

    @activity.defn(name="settle")
    @abstractmethod
    def settle(self, call: Settle) -> Server:
        """Give the server back in the state in which the operation leaves it."""

    @activity.defn(name="finish_delete")
    @abstractmethod
    def finish_delete(self, call: EventLog) -> Server:
        """The server is gone: row kept as DELETED, nothing held."""
