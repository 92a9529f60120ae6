"""Rows as clients see them."""

from collections import defaultdict
from collections.abc import Sequence

from sqlmodel import Session, col, select

from hostler.contract import resources
from hostler.contract.guests import ImageRef
from hostler.contract.servers import Address, AttachedDevice, Fault, Hold, Migration, Server, ServerMigration
from hostler.contract.states import VmState, status
from models import OPEN_MIGRATIONS, Allocation, BlockDevice, Flavor, Host, Image, KeyPair, Network, Port, Volume
from models import Migration as MigrationRow
from models import Server as ServerRow


def server_views(session: Session, rows: Sequence[ServerRow]) -> list[Server]:
    """The servers with their addresses, devices and hosts' names, in as many queries for a thousand as for one."""
    ids = [row.id for row in rows]
    addresses: dict[str, list[Address]] = defaultdict(list)
    ports = select(Port, Network.name).join(Network).where(col(Port.server_id).in_(ids)).order_by(col(Port.position))
    for port, network in session.exec(ports):
        addresses[port.server_id].append(
            Address(network=network, network_id=port.network_id, port_id=port.id, ip=port.ip, mac=port.mac)
        )
    devices: dict[str, list[AttachedDevice]] = defaultdict(list)
    mappings = select(BlockDevice).where(col(BlockDevice.server_id).in_(ids)).order_by(col(BlockDevice.position))
    for device in session.exec(mappings):
        devices[device.server_id].append(
            AttachedDevice(
                device=device.device,
                kind=device.kind,
                size_bytes=device.size_bytes,
                volume_id=device.volume_id,
                delete_on_termination=device.delete_on_termination,
            )
        )
    hosts = host_names(session, {row.host_id for row in rows})
    moves = _migrations(session, rows)
    return [
        _server(row, addresses[row.id], devices[row.id], hosts.get(row.host_id or ""), moves.get(row.id))
        for row in rows
    ]


def _migrations(session: Session, rows: Sequence[ServerRow]) -> dict[str, Migration]:
    """The open moves of the servers: under way, waiting to be decided on, or cut short."""
    waiting = [row.id for row in rows if row.vm_state in (VmState.RESIZED, VmState.ERROR)]
    runs = [row.operation_id for row in rows if row.operation_id is not None]
    if not waiting and not runs:
        return {}
    query = select(MigrationRow).where(
        col(MigrationRow.server_id).in_(waiting) | col(MigrationRow.id).in_(runs),
        col(MigrationRow.status).in_(OPEN_MIGRATIONS),
    )
    moves = session.exec(query).all()
    targets = _reserved(session, [move.server_id for move in moves])
    targets |= {move.server_id: move.target_id for move in moves if move.target_id is not None}
    hosts = host_names(session, {*(move.source_id for move in moves), *targets.values()})
    return {move.server_id: _migration(move, targets.get(move.server_id), hosts) for move in moves}


def _migration(move: MigrationRow, target_id: str | None, hosts: dict[str, str]) -> Migration:
    return Migration(
        id=move.id,
        kind=move.kind,
        status=move.status,
        source=hosts.get(move.source_id, move.source_id),
        target=hosts.get(target_id or "", target_id),
        old_flavor=move.old_flavor["name"],
        new_flavor=move.new_flavor["name"],
        confirms_at=move.confirms_at,
        created_at=move.created_at,
    )


def _reserved(session: Session, server_ids: Sequence[str]) -> dict[str, str]:
    """Where servers that are being moved have reserved, by UUID: of several hosts the one that they try now."""
    query = select(Allocation).where(col(Allocation.server_id).in_(server_ids), col(Allocation.former).is_(False))
    found = session.exec(query.order_by(col(Allocation.created_at))).all() if server_ids else []
    return {allocation.server_id: allocation.host_id for allocation in found}


def migration_views(session: Session, rows: Sequence[tuple[MigrationRow, str, str]]) -> list[ServerMigration]:
    """Moves, each with its server's name and project.

    One that is over has ended when its row was changed last: nothing touches that afterwards.
    """
    hosts = host_names(session, {host_id for move, _, _ in rows for host_id in (move.source_id, move.target_id)})
    return [
        ServerMigration(
            **_migration(move, move.target_id, hosts).model_dump(),
            server_id=move.server_id,
            server_name=name,
            project=project,
            ended_at=None if move.status in OPEN_MIGRATIONS else move.updated_at,
        )
        for move, name, project in rows
    ]


def server_view(session: Session, row: ServerRow) -> Server:
    """One server."""
    return server_views(session, [row])[0]


def host_names(session: Session, ids: set[str | None]) -> dict[str, str]:
    """The labels of hosts, by UUID."""
    return dict(session.exec(select(Host.id, Host.name).where(col(Host.id).in_(ids - {None}))).all())


def _server(
    row: ServerRow,
    addresses: list[Address],
    devices: list[AttachedDevice],
    host: str | None,
    migration: Migration | None,
) -> Server:
    return Server(
        id=row.id,
        name=row.name,
        project=row.project,
        status=status(row.vm_state, row.task_state),
        vm_state=row.vm_state,
        task_state=row.task_state,
        power_state=row.power_state,
        flavor=row.flavor_name,
        image=row.image_name,
        image_id=row.image_id,
        host_id=row.host_id,
        host=host,
        availability_zone=row.availability_zone,
        addresses=addresses,
        devices=devices,
        key_name=row.key_name,
        metadata=row.metadata_,
        fault=Fault.model_validate(row.fault) if row.fault else None,
        hold=Hold.model_validate(row.hold) if row.hold else None,
        migration=migration,
        shelved_image_id=row.shelved_image_id,
        created_at=row.created_at,
        launched_at=row.launched_at,
        shelved_at=row.shelved_at,
        deleted_at=row.deleted_at,
    )


def flavor_view(row: Flavor) -> resources.Flavor:
    """A flavor."""
    return resources.Flavor.model_validate(row.model_dump())


def image_view(row: Image) -> resources.Image:
    """An image."""
    return resources.Image.model_validate(row.model_dump())


def image_ref(row: Image) -> ImageRef:
    """An image as hosts fetch it."""
    return ImageRef(
        id=row.id,
        disk_format=row.disk_format,
        size_bytes=row.size_bytes,
        virtual_size_bytes=row.virtual_size_bytes,
        checksum=row.checksum,
    )


def network_view(row: Network, ports: int) -> resources.Network:
    """A network with the number of its ports."""
    return resources.Network.model_validate(row.model_dump() | {"ports": ports})


def volume_view(row: Volume, host: str | None) -> resources.Volume:
    """A volume with its host's label."""
    return resources.Volume.model_validate(row.model_dump() | {"host": host})


def keypair_view(row: KeyPair) -> resources.KeyPair:
    """A key pair."""
    return resources.KeyPair.model_validate(row.model_dump())


def inventory(row: Host) -> resources.Inventory:
    """What a host said that it has."""
    return resources.Inventory.model_validate(row.model_dump())
