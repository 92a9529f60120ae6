"""What an operation must know of a server that exists: where it, its ports and its volumes are."""

from sqlmodel import Session, col, select

from activities.control.migrations import open_move
from activities.interfaces.servers import AttachedVolume, HostRef, Limits, Target
from hostler.contract.guests import DiskKind
from models import Allocation, BlockDevice, Host, Port, Server, Volume


def target_of(session: Session, row: Server, limits: Limits) -> Target:
    """The server's whereabouts, its own host first, then every other that has an allocation of it."""
    hosts = _hosts(session, row)
    return Target(
        server_id=row.id,
        name=row.name,
        hosts=[HostRef(id=host.id, name=host.name) for host in hosts],
        down=[host.id for host in hosts if host.down_since is not None],
        port_ids=list(session.exec(select(Port.id).where(Port.server_id == row.id)).all()),
        volumes=_volumes(session, row),
        former=row.vm_state,
        move=open_move(session, row.id),
        root_volume=_root_is_volume(session, row),
        shelved_image_id=row.shelved_image_id,
        limits=limits,
    )


def _root_is_volume(session: Session, row: Server) -> bool:
    query = select(BlockDevice.volume_id).where(BlockDevice.server_id == row.id, BlockDevice.kind == DiskKind.ROOT)
    return session.exec(query).first() is not None


def _hosts(session: Session, row: Server) -> list[Host]:
    allocated = select(Allocation.host_id).where(Allocation.server_id == row.id)
    query = select(Host).where((col(Host.id) == row.host_id) | col(Host.id).in_(allocated))
    return sorted(session.exec(query).all(), key=lambda host: host.id != row.host_id)


def _volumes(session: Session, row: Server) -> list[AttachedVolume]:
    query = (
        select(BlockDevice.delete_on_termination, Volume.id, Host)
        .join(Volume, col(Volume.id) == BlockDevice.volume_id)
        .outerjoin(Host, col(Host.id) == Volume.host_id)
        .where(BlockDevice.server_id == row.id, Volume.server_id == row.id)
    )
    return [
        AttachedVolume(volume_id=volume_id, host=_ref(host), discard=discard)
        for discard, volume_id, host in session.exec(query).all()
    ]


def _ref(host: Host | None) -> HostRef | None:
    return None if host is None else HostRef(id=host.id, name=host.name)
