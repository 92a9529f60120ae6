"""Work on all servers of a host: what is there, and what is to be done with each next."""

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.aggregates import metadata_of
from activities.control.migrations import COLD, is_half_back, open_migration, out_of_move
from activities.interfaces import host_work as interface
from activities.interfaces.host_work import DrainPlan, FailurePlan, HostServers, Move, NextMove
from activities.interfaces.servers import HostRef
from hostler.contract.checks import check_number, check_optional_text, check_uuid
from hostler.contract.errors import InvalidRequest, InvalidState, NotFound
from hostler.contract.evacuation import evacuated, priority
from hostler.contract.host_work import DrainRequest, HostFailureRequest, KeptVolume, ServerMove
from hostler.contract.servers import MigrationStatus, OperationName
from hostler.contract.states import TaskState, VmState, status
from hostler.settings import Settings
from models import OPEN_MIGRATIONS, Allocation, Database, Host, Migration, Server, Volume, bump_generation
from scheduler.liveness import Alive
from scheduler.reservation import own_hosts

DRAINED = "it is drained"
LATE = timedelta(seconds=15)
"""So much later than it was sent may a heartbeat be known here, beside some intervals."""
BEATS = 3
OFF = {
    VmState.ACTIVE: OperationName.LIVE_MIGRATE,
    VmState.STOPPED: OperationName.MIGRATE,
    VmState.SHELVED: OperationName.SHELVE_OFFLOAD,
}
"""What takes a server off a host that works."""


class HostWork(interface.HostWork):
    """Chooses; the operations themselves check again."""

    def __init__(self, database: Database, alive: Alive, settings: Settings) -> None:
        self._database = database
        self._alive = alive
        self._settings = settings

    @activity.defn(name="plan_drain")
    def plan_drain(self, call: DrainRequest) -> DrainPlan:
        _check(call)
        check_optional_text("reason", call.reason)
        settings = self._settings.drain

        def change(session: Session) -> DrainPlan:
            bump_generation(session, call.host_id)
            host = _host(session, call.host_id)
            if why := self._down(host):
                raise InvalidState(
                    f"host {host.name} {why}, so nothing can be moved off it",
                    field="host",
                    value=host.name,
                    remedy=f"once it is surely off: hostler host evacuate {host.name}",
                )
            if host.enabled or call.reason:
                host.disabled_reason = call.reason or DRAINED
            host.enabled = False
            return DrainPlan(
                host=HostRef(id=host.id, name=host.name),
                parallel=call.parallel or settings.parallel,
                patience=settings.patience,
                volumes=_kept(session, host.id),
            )

        return self._database.run(change)

    @activity.defn(name="plan_failure")
    def plan_failure(self, call: HostFailureRequest) -> FailurePlan:
        _check(call)
        settings = self._settings.host_failure
        with self._database.read() as session:
            host = _host(session, call.host_id)
            plan = FailurePlan(
                host=HostRef(id=host.id, name=host.name),
                declared=host.down_since is not None,
                fenced=host.fenced,
                back=host.id in self._alive(),
                parallel=call.parallel or settings.parallel,
                patience=settings.patience,
                fence_timeout=settings.fence_timeout,
                registered_at=host.registered_at,
                settle=BEATS * self._settings.temporal.heartbeat_interval + LATE,
            )
        if not (plan.declared or call.force or settings.fence_command):
            raise InvalidRequest(
                f"nobody knows whether host {host.name} is off: a server that runs twice destroys its volumes",
                field="host_failure.fence_command",
                remedy="set the command that powers a host off on the control workers; or see to it that it is off, "
                f"and say so: hostler host evacuate {host.name} --force",
            )
        return plan

    @activity.defn(name="servers_of_host")
    def servers_of_host(self, call: HostServers) -> list[ServerMove]:
        with self._database.read() as session:
            rows = _expected(session, call.host_id) if call.evacuation else _of(session, call.host_id)
            if call.by_policy:
                policies = metadata_of(session, call.host_id)
                default = self._settings.host_failure.evacuate
                rows = [row for row in rows if evacuated(row.metadata_, policies, default)]
            if call.evacuation:
                rows = sorted(rows, key=lambda row: (row.host_id != call.host_id, -priority(row.metadata_)))
            return [ServerMove(server_id=row.id, name=row.name, project=row.project) for row in rows]

    @activity.defn(name="next_move")
    def next_move(self, call: NextMove) -> Move:
        with self._database.read() as session:
            host, row = _host(session, call.host_id), session.get(Server, call.server_id)
            # A move that has been made is not left half-way.
            if not call.migrated and (halt := self._halted(host, call)):
                return Move(halt=halt)
            if row is None or row.deleted_at is not None:
                move = Move(done=True)
            elif call.evacuation:
                move = _built_elsewhere(session, row, host)
            else:
                move = _off(session, row, host, call)
            if move.done and not call.evacuation and not _of(session, host.id):
                move.volumes = _kept(session, host.id)  # the plan may be of hours ago
            return move

    def _halted(self, host: Host, call: NextMove) -> str:
        """Why nothing more is to be begun on the host."""
        if call.evacuation:
            return "" if host.down_since is not None else f"host {host.name} has come back"
        if host.enabled:
            return f"host {host.name} was enabled"
        off = f"once it is surely off: hostler host evacuate {host.name}"  # it is disabled, so nobody else does it
        return f"host {host.name} {why}; {off}" if (why := self._down(host)) else ""

    def _down(self, host: Host) -> str:
        if host.down_since is not None:
            return "was declared down"
        return "" if host.id in self._alive() else "does not answer"


def _check(call: DrainRequest | HostFailureRequest) -> None:
    check_uuid("host_id", call.host_id)
    if call.parallel is not None:
        check_number("parallel", call.parallel, minimum=1)


def _host(session: Session, host_id: str) -> Host:
    host = session.get(Host, host_id)
    if host is None:
        raise NotFound(f"no host {host_id}", field="host", value=host_id, remedy="see: hostler host list")
    return host


def _on(session: Session, host_id: str) -> Sequence[Server]:
    """The servers on the host, oldest first."""
    query = select(Server).where(Server.host_id == host_id, col(Server.deleted_at).is_(None))
    return session.exec(query.order_by(col(Server.created_at), col(Server.id))).all()


def _expected(session: Session, host_id: str) -> list[Server]:
    """The servers on the host, and those that an operation may yet bring there: it has begun before."""
    query = select(Server).join(Allocation, col(Allocation.server_id) == Server.id)
    arriving = query.where(
        Allocation.host_id == host_id,
        # What a revert brings back stands there as the former one.
        (col(Allocation.former).is_(False) | (col(Server.task_state) == TaskState.RESIZE_REVERTING)),
        col(Server.operation_id).is_not(None),
        col(Server.deleted_at).is_(None),
    )
    rows = [*_on(session, host_id), *session.exec(arriving.order_by(col(Server.created_at), col(Server.id)))]
    return list({row.id: row for row in rows}.values())


def _kept(session: Session, host_id: str) -> list[KeptVolume]:
    """The volumes whose data is on the host, of servers anywhere."""
    query = select(Volume, Server).join(Server, col(Server.id) == Volume.server_id)
    used = query.where(Volume.host_id == host_id, col(Server.deleted_at).is_(None))
    return [
        KeptVolume(volume_id=volume.id, name=volume.name, server_id=row.id, server=row.name, project=row.project)
        for volume, row in session.exec(used.order_by(col(Server.name), col(Server.id), col(Volume.id)))
    ]


def _arrives(session: Session, row: Server, host: Host) -> bool:
    """Whether an operation may yet bring the server to the host."""
    if row.host_id == host.id or row.operation_id is None:
        return False
    kinds = (False, True) if row.task_state is TaskState.RESIZE_REVERTING else (False,)
    return any(session.get(Allocation, (row.id, host.id, former)) for former in kinds)


def _of(session: Session, host_id: str) -> list[Server]:
    """These too, and those that have moved away and may still be reverted to the host."""
    query = select(Server).join(Migration, col(Migration.server_id) == Server.id)
    moved = query.where(Migration.source_id == host_id, col(Migration.status).in_(OPEN_MIGRATIONS))
    rows = [*_expected(session, host_id), *session.exec(moved.where(col(Server.deleted_at).is_(None)))]
    return list({row.id: row for row in rows}.values())


def _gone(session: Session, row: Server, host: Host) -> Move | None:
    """Whether the server is off the host."""
    if row.host_id == host.id:
        return None
    now_on = session.get(Host, row.host_id) if row.host_id else None
    return Move(done=True, to=now_on.name if now_on else None)


def _built_elsewhere(session: Session, row: Server, host: Host) -> Move:
    """What takes the server off a host that is off."""
    if _arrives(session, row, host):
        return Move(busy=True)
    if row.operation_id is None and (reason := _whole_elsewhere(session, row, host)):
        return Move(reason=reason)
    return _gone(session, row, host) or Move(
        busy=row.operation_id is not None,
        operation=OperationName.SHELVE_OFFLOAD if row.vm_state is VmState.SHELVED else OperationName.EVACUATE,
    )


def _whole_elsewhere(session: Session, row: Server, host: Host) -> str:
    """Why nobody but a person has the server built anew: a move that was cut short may have brought its disks away."""
    migration = open_migration(session, row.id)
    if migration is None or migration.kind not in COLD or row.host_id != host.id:
        return ""
    if is_half_back(row, migration):
        return f"a revert of it was cut short, and what is left of it may be whole: {out_of_move(migration)}"
    targets = [session.get_one(Host, host_id) for host_id in own_hosts(session, row.id) if host_id != host.id]
    up = [target.name for target in targets if target.down_since is None]
    if migration.status is not MigrationStatus.MIGRATING or not up:
        return ""
    return (
        f"a move of it to host {up[0]} was cut short, which may have its disks as a whole: an evacuation removes "
        f"those. If that is what you want: hostler server evacuate {row.id}"
    )


def _off(session: Session, row: Server, host: Host, call: NextMove) -> Move:
    """What takes the server off a host that works."""
    if row.operation_id is not None:
        coming = f"an operation may yet bring it here: hostler server follow {row.id}"
        return Move(busy=True, reason=coming if _arrives(session, row, host) else "")
    migration = open_migration(session, row.id)
    if migration is not None and migration.source_id == host.id and row.host_id != host.id:
        if migration.status is MigrationStatus.FINISHED and call.migrated:
            return Move(operation=OperationName.CONFIRM_RESIZE)
        return Move(
            reason=f"it is {status(row.vm_state, row.task_state)}, and what it was before its move is on this host"
        )
    if (gone := _gone(session, row, host)) is not None:
        return gone
    if row.vm_state is VmState.BUILDING:
        return Move(busy=True)
    operation = OFF.get(row.vm_state)
    if operation is None:
        return Move(reason=f"it is {status(row.vm_state, row.task_state)}")
    return Move(operation=operation)
