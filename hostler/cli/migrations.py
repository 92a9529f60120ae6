"""How a server's resize or migration is shown: from where to where, and what is to be done about it."""

from hostler.cli.output import cell
from hostler.contract.servers import Migration, MigrationStatus, Server
from hostler.contract.states import VmState


def summary(migration: Migration) -> str:
    """A migration in one line."""
    hosts = f"{migration.source} → {migration.target or '?'}"
    flavors = f", {migration.old_flavor} → {migration.new_flavor}" if _resized(migration) else ""
    return f"{migration.kind} {hosts}{flavors}, {_state(migration)}"


def _resized(migration: Migration) -> bool:
    return migration.old_flavor != migration.new_flavor


def _state(migration: Migration) -> str:
    if migration.status is not MigrationStatus.FINISHED:
        return migration.status
    if migration.confirms_at is None:
        return "waits to be confirmed or reverted"
    return f"confirms itself at {cell(migration.confirms_at)}"


def commands(server: Server, name: str) -> list[str]:
    """What can be typed now about the move of a server that waits for it; nothing else has any."""
    migration = server.migration
    if migration is None or (migration.status, server.vm_state) != (MigrationStatus.FINISHED, VmState.RESIZED):
        return []
    back = f"{migration.source}, {migration.old_flavor}" if _resized(migration) else migration.source
    return [
        f"hostler server confirm {name}  # keep it as it is",
        f"hostler server revert {name}  # back to {back}; what happened to it since is lost",
    ]
