"""The end of what takes a server to another host for good: its row, allocation and migration, by one change."""

from sqlmodel import Session, select

from activities.control.events import write_events
from activities.control.migrations import open_migration
from activities.control.taking import held, let_go
from activities.control.views import server_view
from activities.interfaces.evacuations import FinishEvacuation
from activities.interfaces.live_migrations import FinishLiveMigration
from hostler.contract.guests import DiskKind
from hostler.contract.servers import MigrationStatus, Server
from hostler.contract.states import VmState
from models import BlockDevice, Migration
from scheduler.reservation import release_former, release_others


def arrive(
    session: Session, call: FinishEvacuation | FinishLiveMigration, vm_state: VmState, image_id: str | None = None
) -> Server:
    """The server is on its new host, and has nothing elsewhere; with an `image_id`, its root disk is made of that."""
    row, ours = held(session, call.server_id, call.run_id)
    # A revert ends the migration of a run that was cut short.
    migration = session.get(Migration, call.run_id) or open_migration(session, row.id)
    if ours and migration is not None:
        migration.status, migration.target_id = MigrationStatus.COMPLETED, call.host_id
        row.host_id, row.power_state = call.host_id, call.power_state
        row.vm_state, row.fault = vm_state, None
        if image_id is not None:
            _stand_on(session, row.id, image_id)
        release_former(session, row.id)
        release_others(session, row.id, call.host_id)
        let_go(row)
        write_events(session, call.events)
    return server_view(session, row)


def _stand_on(session: Session, server_id: str, image_id: str) -> None:
    query = select(BlockDevice).where(BlockDevice.server_id == server_id, BlockDevice.kind == DiskKind.ROOT)
    root = session.exec(query).first()
    if root is not None:
        root.image_id = image_id
