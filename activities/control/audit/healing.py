"""What heals a finding in the database: each checks again, under the row's lock, what it rests on.

A finding that no longer stands is left alone, with the reason: something else has seen to it.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from activities.control.audit.facts import is_busy
from activities.control.audit.records import LONG
from activities.control.audit.servers import AGREEING, FOLLOWED
from activities.control.events import write_events
from activities.control.migrations import COLD, open_migration, out_of_move
from activities.interfaces.audit import Suspicion
from activities.interfaces.servers import EventLog
from hostler.contract.errors import OperationFailed
from hostler.contract.guests import DiskKind
from hostler.contract.resources import ImageStatus, ImageType, VolumeStatus
from hostler.contract.servers import Fault, OperationName, Step, StepStatus
from hostler.contract.states import PowerState, TaskState, VmState, status
from models import BlockDevice, Host, Image, Migration, Port, Server, ServerEvent, Volume, bump_generation, now

SKEW = timedelta(minutes=1)
"""By which the clocks of Temporal and of a control worker may differ."""
HEALED = ""
CHANGED = "the server has changed meanwhile"


def locked(session: Session, suspicion: Suspicion) -> Server | None:
    """The server's row, locked, as long as it is still the one that the looks have seen."""
    server = session.get(Server, suspicion.finding.server_id, with_for_update=True)
    evidence = suspicion.evidence
    if server is None or (server.updated_at, server.operation_id) != (evidence.updated_at, evidence.operation_id):
        return None
    return server


def follow_power(session: Session, suspicion: Suspicion, run_id: str) -> str:
    """The server's state follows the hypervisor's word. Answers why not, or nothing."""
    if _done_before(session, suspicion, run_id):
        return HEALED
    server, power = locked(session, suspicion), suspicion.evidence.power_state
    if server is None or power is None or is_busy(server):
        return CHANGED
    before = server.vm_state
    after = FOLLOWED.get((before, power), before)
    if after is before and before is not VmState.ERROR and (before, power) not in AGREEING:
        return CHANGED
    server.vm_state, server.power_state = after, power
    changed = f": {status(after, None)}, was {status(before, None)}" if after is not before else ""
    _tell(session, suspicion, run_id, f"its guest is {power}{changed}")
    return HEALED


def give_back(session: Session, suspicion: Suspicion, run_id: str) -> str:
    """Free a server from a run that no longer exists. Answers why not, or nothing."""
    if _done_before(session, suspicion, run_id):
        return HEALED
    server = locked(session, suspicion)
    if server is None or not is_busy(server):
        return CHANGED
    if now() - server.updated_at < LONG:
        return f"its row changed less than {LONG.seconds // 60} minutes ago"
    unasked = server.host_id is not None and suspicion.finding.host_id is None
    if unasked and not _is_down(session, server):
        return "its host has come back meanwhile"
    lost, before = server.operation_id, status(server.vm_state, server.task_state)
    power = suspicion.evidence.power_state
    state, fault = _state_and_fault(session, server, power, unasked=unasked)
    server.operation_id, server.task_state, server.hold = None, None, None
    server.vm_state = state
    server.power_state = power or (PowerState.SHUTDOWN if unasked else PowerState.NOSTATE)
    if state is VmState.SHELVED:  # with it an unshelve of uncertain end can be repeated
        server.shelved_at = server.shelved_at or now()
    if fault is not None:
        server.fault = Fault(created_at=now(), error=fault.detail).model_dump(mode="json")
    _tell(session, suspicion, run_id, f"run {lost} is gone: {status(state, None)}, was {before}")
    return HEALED


def _is_down(session: Session, server: Server) -> bool:
    assert server.host_id is not None
    bump_generation(session, server.host_id)  # it may be registering at this moment
    return session.get_one(Host, server.host_id).down_since is not None


def _state_and_fault(
    session: Session, server: Server, power: PowerState | None, *, unasked: bool
) -> tuple[VmState, OperationFailed | None]:
    """What becomes of the server. `unasked`: its host is down, and what it has of the server nobody knows."""
    migration, reverting = open_migration(session, server.id), server.task_state is TaskState.RESIZE_REVERTING
    gone = power is None and not unasked
    # On one host nobody can tell which of the two guests is in its place; nor whether both are there, if one is down.
    mixed = reverting and migration is not None and (unasked or migration.source_id == server.host_id)
    if migration is not None and (gone or mixed or migration.id == server.operation_id):
        migration.confirms_at = None
        return VmState.ERROR, _cut_short(server, migration, unasked=unasked)
    return _on_host_down(session, server) if unasked else _former(session, server, power)


STAYS = (VmState.RESIZED, VmState.SHELVED, VmState.SHELVED_OFFLOADED)
"""What a server is that an operation has taken, until its end."""


def _cut_short(server: Server, migration: Migration, *, unasked: bool) -> OperationFailed:
    # A revert asks for what is set aside there.
    waits = unasked and migration.source_id == server.host_id and migration.kind in COLD
    return OperationFailed(
        f"run {server.operation_id}, which moved it or took that back, is gone: nobody finished it",
        remedy=f"when its host is back, {out_of_move(migration)}" if waits else out_of_move(migration),
    )


def _is_on_shelf(session: Session, server: Server, since: datetime | None = None) -> bool:
    """Whether a server that was leaving its host has its root disk elsewhere: as an image, or as a volume.

    An image from before `since` is none of it.
    """
    if server.vm_state is VmState.SHELVED:
        return True
    if server.task_state is not TaskState.SHELVING:
        return False
    query = select(Image).where(Image.status == ImageStatus.ACTIVE)
    if since is not None:
        query = query.where(col(Image.created_at) >= since - SKEW)
    images = session.exec(query.order_by(col(Image.created_at)))
    kept = (ImageType.SHELVED, server.id)
    made = [i.id for i in images if (i.properties.get("image_type"), i.properties.get("instance_uuid")) == kept]
    server.shelved_image_id = made[-1] if made else server.shelved_image_id
    root = select(BlockDevice.volume_id).where(BlockDevice.server_id == server.id, BlockDevice.kind == DiskKind.ROOT)
    return bool(made) or session.exec(root).first() is not None


def _former(session: Session, server: Server, power: PowerState | None) -> tuple[VmState, OperationFailed | None]:
    """The state that the server has without its operation, and the fault that says what to do."""
    remedy = f"delete it, which removes all that is left of it: hostler server delete {server.id}"
    if server.vm_state is VmState.BUILDING:
        message = f"run {server.operation_id}, which built it, is gone: nobody finished or undid the build"
        return VmState.ERROR, OperationFailed(message, remedy=remedy)
    if server.vm_state is VmState.ERROR and server.fault is not None:
        return VmState.ERROR, None
    if server.task_state is TaskState.REBUILDING:
        message = f"run {server.operation_id}, which rebuilt it, is gone: its disk may be the old or the new one"
        return VmState.ERROR, OperationFailed(message, remedy=f"rebuild it: hostler server rebuild {server.id}")
    if power is None and server.host_id is not None and _is_on_shelf(session, server):
        return VmState.SHELVED, None  # shelve-offload ends what was begun
    if server.vm_state in STAYS and (power is not None or server.host_id is None):
        return server.vm_state, None
    if power is None:
        message = f"run {server.operation_id} is gone, and the server has no guest on its host"
        return VmState.ERROR, OperationFailed(message, remedy=remedy)
    if server.vm_state is VmState.ERROR:
        return VmState.ERROR, None
    if power is PowerState.RUNNING:
        return VmState.ACTIVE, None
    return (VmState.STOPPED if power is PowerState.SHUTDOWN else server.vm_state), None


def _on_host_down(session: Session, server: Server) -> tuple[VmState, OperationFailed | None]:
    """The same where its host is down: it is what it was, for then it can be built elsewhere."""
    evacuate = f"evacuate it: hostler server evacuate {server.id}"
    if server.task_state is TaskState.DELETING:
        message = f"run {server.operation_id}, which deleted it, is gone: nobody finished that"
        return VmState.ERROR, OperationFailed(message, remedy=f"delete it again: hostler server delete {server.id}")
    if server.vm_state is VmState.ERROR and server.fault is not None:
        return VmState.ERROR, None
    if server.task_state is TaskState.REBUILDING:
        message = f"run {server.operation_id}, which rebuilt it, is gone, and its host is down"
        remedy = f"{evacuate}; or, should its host be back, rebuild it: hostler server rebuild {server.id}"
        return VmState.ERROR, OperationFailed(message, remedy=remedy)
    # The guest may have run on after a shelve before, whose image is still there.
    if _is_on_shelf(session, server, _last_ended(session, server)):
        return VmState.SHELVED, None
    if server.vm_state is VmState.ERROR:
        message = f"run {server.operation_id} is gone, and its host is down"
        return VmState.ERROR, OperationFailed(message, remedy=evacuate)
    return server.vm_state, None


def _last_ended(session: Session, server: Server) -> datetime | None:
    """When the last operation before the one that is gone had ended, by the server's history."""
    query = select(ServerEvent).where(
        ServerEvent.server_id == server.id,
        col(ServerEvent.run_id).is_distinct_from(server.operation_id),
        col(ServerEvent.operation).not_in([OperationName.AUDIT, OperationName.HYPERVISOR]),
    )
    last = session.exec(query.order_by(col(ServerEvent.id).desc())).first()
    step = Step.model_validate(last.step) if last is not None else None
    return (step.finished_at or step.started_at) if step is not None else None


def has_volumes(session: Session, server_id: str | None) -> list[Volume]:
    """The volumes that a deleted server still holds."""
    return list(session.exec(select(Volume).where(Volume.server_id == server_id).with_for_update()))


def release_rows(session: Session, suspicion: Suspicion) -> str:
    """Ports and disks of a deleted server; its volumes become available, whatever was to become of them."""
    server_id = suspicion.finding.server_id
    server = session.get(Server, server_id, with_for_update=True)
    if server is None or server.deleted_at is None or server.operation_id is not None:
        return CHANGED
    session.exec(delete(Port).where(col(Port.server_id) == server_id))
    session.exec(delete(BlockDevice).where(col(BlockDevice.server_id) == server_id))
    for volume in has_volumes(session, server_id):
        volume.status, volume.server_id = VolumeStatus.AVAILABLE, None
    return HEALED


def _done_before(session: Session, suspicion: Suspicion, run_id: str) -> bool:
    """Whether this run has healed it already, and the answer was lost."""
    query = select(ServerEvent.id).where(
        ServerEvent.server_id == suspicion.finding.server_id, ServerEvent.run_id == run_id
    )
    return session.exec(query).first() is not None


def _tell(session: Session, suspicion: Suspicion, run_id: str, note: str) -> None:
    finding = suspicion.finding
    assert finding.server_id is not None
    step = Step(name=finding.kind, status=StepStatus.DONE, host=finding.host, started_at=now(), note=note)
    write_events(
        session,
        EventLog(server_id=finding.server_id, run_id=run_id, operation=OperationName.AUDIT, steps=[step]),
    )
