"""The reservation: an allocation is made where it fits, or not at all, however many try at once.

A reservation is one transaction. It locks the server's row, then the host's row, and only then adds up what the host
has given away. The sum must be a statement of its own: PostgreSQL's statements see what was committed when they
began, and the one that waited for the lock began too early. `key_share` lets others refer to the rows meanwhile. On
SQLite the transaction itself is the lock.

A server that moves keeps what it had as its former allocation, which no function here touches but those that say so.
"""

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, delete, select, update
from sqlmodel.sql.expression import SelectOfScalar

from models import Allocation, Host, Server, bump_generation
from scheduler.filters import all_pass, room_filters, state_filters
from scheduler.host_state import read_states
from scheduler.request import SchedulingRequest


def held_host(session: Session, request: SchedulingRequest) -> str | None:
    """The host where the server has an allocation already, one that is not excluded nor its former, or None."""
    held = session.exec(_own_hosts(request.server_id)).all()
    return next((host_id for host_id in sorted(held) if host_id not in request.excluded), None)


def lock_server(session: Session, server_id: str) -> str | None:
    """Nobody else reserves for the server until the transaction ends: a step that runs twice at once reserves once.

    The run that holds the server.
    """
    query = select(Server.operation_id).where(Server.id == server_id).with_for_update(key_share=True)
    return session.exec(query).first()


def reserve(session: Session, host_id: str, request: SchedulingRequest) -> bool:
    """Give the server its part of the host; True when it has it, also from before. False changes nothing."""
    session.execute(select(Host.id).where(Host.id == host_id).with_for_update(key_share=True))
    if session.get(Allocation, (request.server_id, host_id, False)):
        return True
    fits = all_pass([*state_filters(), *room_filters(request)])
    if not any(fits(host) for host in read_states(session, [host_id])):
        return False
    bump_generation(session, host_id)
    session.add(
        Allocation(
            server_id=request.server_id,
            host_id=host_id,
            vcpus=request.vcpus,
            ram_mib=request.ram_mib,
            disk_gib=request.disk_gib,
        )
    )
    session.flush()
    return True


def release(session: Session, server_id: str, host_id: str | None = None) -> None:
    """Give back what the server has of the host, or of every host; nothing happens if it has nothing."""
    held = _own_hosts(server_id)
    if host_id is not None:
        held = held.where(Allocation.host_id == host_id)
    for each in sorted(session.exec(held).all()):  # in one order for all, or two could wait for each other
        _delete(session, server_id, each, former=False)


def release_others(session: Session, server_id: str, host_id: str | None) -> None:
    """Give back what the server has of other hosts than its own.

    A reservation whose answer came too late for anybody to wait for it may have left some.
    """
    for other in sorted(session.exec(_own_hosts(server_id)).all()):
        if other != host_id:
            release(session, server_id, other)


def make_former(session: Session, server_id: str) -> None:
    """What the server has, it keeps as its former allocation: it may reserve anew, on the same host too."""
    for host_id in sorted(session.exec(_own_hosts(server_id)).all()):
        bump_generation(session, host_id)
        _turn(session, server_id, host_id, former=True)


def restore_former(session: Session, server_id: str, host_id: str | None = None) -> None:
    """The server's former allocation is its own again, and what it has reserved since is given back: all at once.

    Of one that moved twice, that on the host only.
    """
    formers = [each for each in former_hosts(session, server_id) if host_id in (None, each)]
    if formers:
        release(session, server_id)
    for each in formers:
        bump_generation(session, each)
        _turn(session, server_id, each, former=False)


def release_former(session: Session, server_id: str, host_id: str | None = None) -> None:
    """Give the server's former allocation back, if it has one; with a host, only that there."""
    for each in former_hosts(session, server_id):
        if host_id in (None, each):
            _delete(session, server_id, each, former=True)


def lock_hosts(session: Session, server_id: str, *besides: str) -> None:
    """Hold the rows of all hosts where the server has anything, and of those besides, until the transaction ends.

    Whoever changes more than one of them begins with it: in one order for all, or two could wait for each other.
    """
    for host_id in sorted({*own_hosts(session, server_id), *former_hosts(session, server_id), *besides}):
        bump_generation(session, host_id)


def own_hosts(session: Session, server_id: str) -> list[str]:
    """Where the server has an allocation that is not its former one."""
    return sorted(session.exec(_own_hosts(server_id)).all())


def former_hosts(session: Session, server_id: str) -> list[str]:
    """Where it has a former one."""
    return sorted(session.exec(_hosts(server_id, former=True)).all())


def _own_hosts(server_id: str) -> SelectOfScalar[str]:
    return _hosts(server_id, former=False)


def _hosts(server_id: str, *, former: bool) -> SelectOfScalar[str]:
    return select(Allocation.host_id).where(Allocation.server_id == server_id, col(Allocation.former).is_(former))


def _delete(session: Session, server_id: str, host_id: str, *, former: bool) -> None:
    bump_generation(session, host_id)
    session.exec(delete(Allocation).where(*_this(server_id, host_id, former=former)))


def _turn(session: Session, server_id: str, host_id: str, *, former: bool) -> None:
    session.exec(update(Allocation).where(*_this(server_id, host_id, former=not former)).values(former=former))


def _this(server_id: str, host_id: str, *, former: bool) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Allocation.server_id) == server_id,
        col(Allocation.host_id) == host_id,
        col(Allocation.former).is_(former),
    )
