"""Servers and the operations on them, as clients ask for and see them."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, Field

from hostler.contract.errors import ErrorDetail
from hostler.contract.names import DEFAULT_PROJECT
from hostler.contract.states import PowerState, TaskState, VmState


class SourceType(StrEnum):
    """Where a block device's first content comes from."""

    BLANK = "blank"
    IMAGE = "image"
    VOLUME = "volume"


class DestinationType(StrEnum):
    """Where the block device lives."""

    LOCAL = "local"
    VOLUME = "volume"


class BlockDeviceMapping(BaseModel):
    """Nova's block device mapping, version 2.

    `boot_index` 0 is the root disk; None or negative is a data disk. `volume_size` is in GiB. A local blank device is
    an ephemeral disk, or swap when `guest_format` is "swap": its `volume_size` is in MiB, as in Nova. Without a size,
    either is as large as the flavor allows.
    """

    source_type: str
    destination_type: str
    uuid: str | None = None
    boot_index: int | None = None
    volume_size: int | None = None
    guest_format: str | None = None
    delete_on_termination: bool = False


class NetworkRequest(BaseModel):
    """One interface: on which network (name or UUID) and, if it matters, with which address."""

    network: str
    fixed_ip: str | None = None


class OperationName(StrEnum):
    """The operations on a server; each is a workflow type of the same name.

    `AUDIT` and `HYPERVISOR` are none: in a server's events they stand for what was mended without one, or done later by
    a host that owed it, and for what its guest did by itself.
    """

    BOOT = "boot"
    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    REBUILD = "rebuild"
    SHELVE = "shelve"
    SHELVE_OFFLOAD = "shelve-offload"
    UNSHELVE = "unshelve"
    RESIZE = "resize"
    MIGRATE = "migrate"
    LIVE_MIGRATE = "live-migrate"
    EVACUATE = "evacuate"
    CONFIRM_RESIZE = "confirm-resize"
    REVERT_RESIZE = "revert-resize"
    DELETE = "delete"
    AUDIT = "audit"
    HYPERVISOR = "hypervisor"


class OnFailure(StrEnum):
    """What an operation does when a step has exhausted its retries, and another host is no way out."""

    GIVE_UP = "give-up"
    HOLD = "hold"


NEVER = timedelta(seconds=-1)
"""A shelved server keeps its host for good, as Nova has it."""


class OperationRequest(BaseModel):
    """What every operation's request has. `request_id` makes a repeated call the same call.

    `on_failure` None is the control worker's setting.
    """

    server_id: str
    request_id: str
    project: str = DEFAULT_PROJECT
    on_failure: OnFailure | None = None


class BootRequest(OperationRequest):
    """Build a server. `flavor`, `image` and the networks may be names or UUIDs; `user_data` is base64."""

    name: str
    flavor: str
    image: str | None = None
    networks: list[NetworkRequest] = []
    block_device_mapping: list[BlockDeviceMapping] = []
    key_name: str | None = None
    user_data: str | None = Field(default=None, repr=False)
    metadata: dict[str, str] = {}
    availability_zone: str | None = None
    host: str | None = None
    config_drive: bool = True
    max_attempts: int | None = None


class StartRequest(OperationRequest):
    """Power the server on."""


class StopRequest(OperationRequest):
    """Power it off: ask the guest, and after `timeout` pull the plug. None is the control worker's setting."""

    timeout: timedelta | None = None


class RebootRequest(OperationRequest):
    """Reboot: soft asks the guest first, as stop does; hard resets at once."""

    hard: bool = False
    timeout: timedelta | None = None


class SnapshotRequest(OperationRequest):
    """Make an image, of the UUID `image_id`, of the server's root disk; the server goes on.

    A guest with an agent is asked to flush and freeze its file systems for that moment. `quiesce`: one that cannot be
    is no good, and the snapshot fails.
    """

    image_id: str
    name: str
    quiesce: bool = False


class BackupRequest(SnapshotRequest):
    """A snapshot of a kind (`backup_type`: "daily", say) of which the server keeps the `rotation` latest."""

    backup_type: str
    rotation: int


class RebuildRequest(OperationRequest):
    """Make the server's root disk anew; identity, addresses and volumes stay.

    `image` None is the one that it has. `key_name`, `user_data` (base64) and `admin_password` None leave what there is;
    an empty key name or user data takes it away. Ephemeral disks are made anew too, unless `preserve_ephemeral`.
    """

    image: str | None = None
    key_name: str | None = None
    user_data: str | None = Field(default=None, repr=False)
    admin_password: str | None = Field(default=None, repr=False)
    preserve_ephemeral: bool = False


class ShelveRequest(OperationRequest):
    """Stop the server and keep its root disk as an image; then it gives its host up.

    `offload_after` is how long it first keeps its host; `NEVER`: for good; None is the control worker's setting.
    """

    offload_after: timedelta | None = None


class ShelveOffloadRequest(OperationRequest):
    """Take a shelved server off its host."""


class UnshelveRequest(OperationRequest):
    """Bring a shelved server back: where it is, or on the host or in the availability zone that are named."""

    availability_zone: str | None = None
    host: str | None = None
    max_attempts: int | None = None


class MoveRequest(OperationRequest):
    """What resize and cold migrate share. `confirm_after` is when the move confirms itself, zero: never.

    None is the control worker's setting.
    """

    max_attempts: int | None = None
    confirm_after: timedelta | None = None


class ResizeRequest(MoveRequest):
    """Give the server another flavor, on whichever host has room for it."""

    flavor: str


class MigrateRequest(MoveRequest):
    """Move the server, powered off meanwhile, to the host named or to the scheduler's choice."""

    host: str | None = None


class TimeoutAction(StrEnum):
    """What becomes of a live migration that takes too long; Nova's live_migration_timeout_action."""

    ABORT = "abort"
    FORCE_COMPLETE = "force-complete"


class LiveMigrateRequest(OperationRequest):
    """Move the server to another host while it runs: to the one named, or to the scheduler's choice.

    `completion_timeout` is how long its guest may take to get there; then comes the `timeout_action`. What is None is
    the control worker's setting.
    """

    host: str | None = None
    max_attempts: int | None = None
    completion_timeout: timedelta | None = None
    timeout_action: TimeoutAction | None = None


class EvacuateRequest(OperationRequest):
    """Build the server anew, away from its host, which has been declared down: on `host`, or where there is room."""

    host: str | None = None
    max_attempts: int | None = None


class ConfirmResizeRequest(OperationRequest):
    """Keep a resized or migrated server as it is now; what it left behind is removed."""


class RevertResizeRequest(OperationRequest):
    """Bring a resized or migrated server back to where and what it was; what happened to it since is lost."""


class DeleteRequest(OperationRequest):
    """Delete the server, also in the middle of another operation."""


class OperationCall(BaseModel):
    """The one update that every operation answers: begin (or join) the operation that `request_id` names."""

    operation: OperationName
    server_id: str
    request_id: str
    project: str = ""
    fingerprint: str = ""
    on_failure: OnFailure | None = None


class Accepted(BaseModel):
    """The answer to an accepted call. `run_id` is the run that took it; a pre-empting delete goes on in the next."""

    operation: OperationName
    server_id: str
    run_id: str
    preempts: OperationName | None = None


class Choice(StrEnum):
    """What an operator can decide about an operation that holds."""

    RETRY = "retry"
    MOVE = "move"
    GIVE_UP = "give-up"


class Decision(BaseModel):
    """An operator's word: the one update that an operation takes while it holds.

    `host` (name or UUID) is for `move`, None lets the scheduler choose; `by` is who decided, as they call themselves.
    """

    choice: Choice
    by: str = ""
    note: str = ""
    host: str | None = None


class Hold(BaseModel):
    """An operation that waits for a decision, its world intact. `until` is when it gives up by itself.

    `choices` are those that make sense at this step.
    """

    operation: OperationName
    run_id: str
    step: str
    attempt: int = 1
    host: str | None = None
    error: ErrorDetail
    since: datetime
    until: datetime
    choices: list[Choice]


class Decided(BaseModel):
    """The answer to a decision: what it was taken for."""

    operation: OperationName
    server_id: str
    run_id: str
    step: str
    choice: Choice


class Address(BaseModel):
    """One interface's address."""

    network: str
    network_id: str
    port_id: str
    ip: str
    mac: str


class Fault(BaseModel):
    """Why a server is in ERROR, in full."""

    created_at: datetime
    error: ErrorDetail


class AttachedDevice(BaseModel):
    """A block device of a server. `volume_id` is None for a disk on the host."""

    device: str
    kind: str
    size_bytes: int
    volume_id: str | None = None
    delete_on_termination: bool = False


class MigrationKind(StrEnum):
    """What moved a server."""

    RESIZE = "resize"
    MIGRATION = "migration"
    LIVE_MIGRATION = "live-migration"
    EVACUATION = "evacuation"


class MigrationStatus(StrEnum):
    """Nova's, as far as they apply. A migration is open until it is confirmed, reverted or given up.

    Live migrations and evacuations are COMPLETED at their end: there is nothing to confirm.
    """

    MIGRATING = "migrating"
    FINISHED = "finished"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    COMPLETED = "completed"
    ERROR = "error"


class Migration(BaseModel):
    """A move of a server. `target` is the host that it tries now or tried last, None: none yet; `confirms_at` is when
    it confirms itself, None: not by itself.
    """

    id: str
    kind: MigrationKind
    status: MigrationStatus
    source: str
    target: str | None = None
    old_flavor: str
    new_flavor: str
    confirms_at: datetime | None = None
    created_at: datetime


class ServerMigration(Migration):
    """A move in a list of moves. Its `id` is the run that moves the server, or did; `ended_at` None: it is open."""

    server_id: str
    server_name: str
    project: str
    ended_at: datetime | None = None


class Server(BaseModel):
    """A server. `migration` is the one under way, that waits to be confirmed or reverted, or that was cut short."""

    id: str
    name: str
    project: str
    status: str
    vm_state: VmState
    task_state: TaskState | None = None
    power_state: PowerState = PowerState.NOSTATE
    flavor: str
    image: str | None = None
    image_id: str | None = None
    host_id: str | None = None
    host: str | None = None
    availability_zone: str | None = None
    addresses: list[Address] = []
    devices: list[AttachedDevice] = []
    key_name: str | None = None
    metadata: dict[str, str] = {}
    fault: Fault | None = None
    hold: Hold | None = None
    migration: Migration | None = None
    shelved_image_id: str | None = None
    created_at: datetime | None = None
    launched_at: datetime | None = None
    shelved_at: datetime | None = None
    deleted_at: datetime | None = None


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    OWED = "owed"


class Step(BaseModel):
    """One step of an operation, as its progress and its events show it. `attempt` counts hosts, from 1."""

    name: str
    status: StepStatus
    attempt: int = 1
    host: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    retries: int = 0
    note: str | None = None


class Progress(BaseModel):
    """A running operation: its steps in the order they began, then those to come."""

    operation: str
    server_id: str = ""
    run_id: str = ""
    attempt: int = 1
    host: str | None = None
    steps: list[Step] = []
    hold: Hold | None = None
    done: bool = False


class RunningOperation(BaseModel):
    """An operation as Temporal's index has it. `hold` says why one that is `held` holds, where that is known."""

    operation: OperationName
    server_id: str
    server_name: str | None = None
    project: str
    run_id: str
    step: str | None = None
    attempt: int = 1
    host: str | None = None
    held: bool = False
    overdue: bool = False
    started_at: datetime
    hold: Hold | None = None


class ServerEvent(BaseModel):
    """One line of a server's history: a step of an operation, with its outcome."""

    operation: OperationName
    run_id: str
    step: Step


class ForceComplete(BaseModel):
    """An operator's word to a live migration: let the guest stand still until it is across."""

    by: str = ""


class VifPlugged(BaseModel):
    """A host saw a port's tap come up in its bridge."""

    port_id: str
    host_id: str
