"""The reservation: an allocation is made where it fits, or not at all, however many try at once.

A reservation is one transaction. It locks the server's row, then the host's row, and only then adds up what the host
has given away. The sum must be a statement of its own: PostgreSQL's statements see what was committed when they
began, and the one that waited for the lock began too early. `key_share` lets others refer to the rows meanwhile. On
SQLite the transaction itself is the lock.
"""

from sqlmodel import Session, col, delete, select

from models import Allocation, Host, Server, bump_generation
from scheduler.filters import all_pass, room_filters, state_filters
from scheduler.host_state import read_states
from scheduler.request import SchedulingRequest


def held_host(session: Session, request: SchedulingRequest) -> str | None:
    """The host where the server has an allocation already, one that is not excluded, or None."""
    held = session.exec(select(Allocation.host_id).where(Allocation.server_id == request.server_id)).all()
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
    if session.get(Allocation, (request.server_id, host_id)):
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
    held = select(Allocation.host_id).where(Allocation.server_id == server_id)
    if host_id is not None:
        held = held.where(Allocation.host_id == host_id)
    for each in sorted(session.exec(held).all()):  # in one order for all, or two could wait for each other
        bump_generation(session, each)
        session.exec(delete(Allocation).where(col(Allocation.server_id) == server_id, col(Allocation.host_id) == each))


def release_others(session: Session, server_id: str, host_id: str | None) -> None:
    """Give back what the server has of other hosts than its own.

    A reservation whose answer came too late for anybody to wait for it may have left some.
    """
    held = select(Allocation.host_id).where(Allocation.server_id == server_id)
    for other in sorted(session.exec(held).all()):
        if other != host_id:
            release(session, server_id, other)
