"""What the database knows of one host and of all that the host says it has, read in one transaction."""

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass

from sqlmodel import Session, and_, col, or_, select

from activities.control.views import host_names
from activities.interfaces.holdings import Holdings
from hostler.contract.resources import VolumeStatus
from hostler.contract.states import VmState
from models import OPEN_MIGRATIONS, Allocation, BlockDevice, Image, Migration, OwedWork, Port, Server, Volume


@dataclass(frozen=True)
class Facts:
    """The database's side. Dictionaries are by UUID.

    `hosts` are the names of those on which the servers are, `left` the servers that have moved from this host and may
    yet come back, `owed` the servers and volumes of which the host owes some work, `images_in_use` those on which a
    disk of this host may stand, or from which a volume that is being made comes.
    """

    servers: dict[str, Server]
    allocated: dict[str, set[str]]
    ports: dict[str, Port]
    volumes: dict[str, Volume]
    hosts: dict[str, str]
    left: set[str]
    owed: set[str]
    images: set[str]
    images_in_use: set[str]

    def of(self, server: Server) -> list[Port]:
        """The server's ports."""
        return [port for port in self.ports.values() if port.server_id == server.id]


def is_busy(server: Server) -> bool:
    """Whether an operation has the server, by the row's own word."""
    return server.operation_id is not None or server.task_state is not None or server.vm_state is VmState.BUILDING


def read_facts(session: Session, host_id: str, holdings: Holdings) -> Facts:
    """All that is needed to judge what the host says that it has."""
    volumes = _volumes(session, host_id, {*holdings.volumes, *holdings.exports})
    own = col(Allocation.former).is_(False)
    allocations = session.exec(select(Allocation.server_id).where(Allocation.host_id == host_id, own)).all()
    mentioned = {
        *holdings.claims,
        *holdings.formers,
        *(guest.server_id for guest in holdings.guests),
        *(port.server_id for port in holdings.ports),
        *(volume.server_id for volume in volumes.values() if volume.server_id),
        *allocations,
    }
    query = select(Server).where(or_(col(Server.id).in_(mentioned), col(Server.host_id) == host_id))
    servers = {row.id: row for row in session.exec(query)}
    allocated: dict[str, set[str]] = defaultdict(set)
    for row in session.exec(select(Allocation).where(col(Allocation.server_id).in_(servers), own)):
        allocated[row.server_id].add(row.host_id)
    here = [row.id for row in servers.values() if row.host_id == host_id]
    bound = [port.port_id for port in holdings.ports]
    ports = session.exec(select(Port).where(or_(col(Port.server_id).in_(here), col(Port.id).in_(bound))))
    return Facts(
        servers=servers,
        allocated=allocated,
        ports={port.id: port for port in ports},
        volumes=volumes,
        hosts=host_names(session, {server.host_id for server in servers.values()}),
        left=_left(session, host_id),
        owed=_owed(session, host_id),
        images=set(session.exec(select(Image.id).where(col(Image.id).in_(holdings.images))).all()),
        images_in_use=images_in_use(session, holdings.images, None if holdings.shares_images else host_id, mentioned),
    )


def _volumes(session: Session, host_id: str, mentioned: set[str]) -> dict[str, Volume]:
    query = select(Volume).where(or_(Volume.host_id == host_id, col(Volume.id).in_(mentioned)))
    return {volume.id: volume for volume in session.exec(query)}


def _left(session: Session, host_id: str) -> set[str]:
    query = select(Migration.server_id).where(
        Migration.source_id == host_id, col(Migration.status).in_(OPEN_MIGRATIONS)
    )
    return set(session.exec(query).all())


def _owed(session: Session, host_id: str) -> set[str]:
    works = session.exec(select(OwedWork).where(OwedWork.host_id == host_id)).all()
    subjects = [(work.server_id, work.argument.get("server_id"), work.argument.get("volume_id")) for work in works]
    return {subject for three in subjects for subject in three if subject}


def images_in_use(
    session: Session, images: list[str], host_id: str | None, mentioned: Set[str] = frozenset()
) -> set[str]:
    """Those of the images that this host (None: any) may need though they are not in the catalogue.

    From these come servers that are there, for which it is reserved, or of which the host has something (`mentioned`),
    and volumes that are being made. The copy of what a shelved server was may be the last one, wherever it is.
    """
    alive = col(Server.deleted_at).is_(None)
    reserved = select(Allocation.server_id).where(Allocation.host_id == host_id)
    there = or_(Server.host_id == host_id, col(Server.id).in_(mentioned), col(Server.id).in_(reserved))
    here = alive if host_id is None else and_(alive, there)
    servers = select(Server.image_id).where(col(Server.image_id).in_(images), here)
    shelved = select(Server.shelved_image_id).where(col(Server.shelved_image_id).in_(images), alive)
    disks = (
        select(BlockDevice.image_id)
        .join(Server, col(Server.id) == BlockDevice.server_id)
        .where(col(BlockDevice.image_id).in_(images), here)
    )
    volumes = select(Volume.image_id).where(
        col(Volume.image_id).in_(images), col(Volume.status) == VolumeStatus.CREATING
    )
    found = (image for query in (servers, shelved, disks, volumes) for image in session.exec(query))
    return {image for image in found if image is not None}
