"""Migrations: servers on their way to another host or flavor, and those that were."""

from datetime import datetime
from typing import Any

from sqlmodel import Field

from hostler.contract.servers import MigrationKind, MigrationStatus
from hostler.contract.states import PowerState, VmState
from models.base import Json, Table, UtcDateTime, Uuid, enumerated, now

OPEN_MIGRATIONS = (MigrationStatus.MIGRATING, MigrationStatus.FINISHED)
"""The server has a former guest, claim and allocation then, on its source."""


class Migration(Table, table=True):
    """A move of a server. The flavors are contract `Flavor`s, `former_*` what the server was before, `old_devices`
    its block devices then.

    `id` is the run that moves it, so that a step that runs twice finds its own.

    Owner: the operation that holds the server.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    server_id: str = Field(foreign_key="server.id", index=True, sa_type=Uuid)
    kind: MigrationKind = Field(sa_type=enumerated(MigrationKind))
    status: MigrationStatus = Field(default=MigrationStatus.MIGRATING, sa_type=enumerated(MigrationStatus))
    source_id: str = Field(foreign_key="host.id", index=True, sa_type=Uuid)
    target_id: str | None = Field(default=None, foreign_key="host.id", sa_type=Uuid)
    old_flavor: dict[str, Any] = Field(sa_type=Json)
    new_flavor: dict[str, Any] = Field(sa_type=Json)
    old_devices: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    former_vm_state: VmState = Field(sa_type=enumerated(VmState))
    former_power_state: PowerState = Field(sa_type=enumerated(PowerState))
    confirms_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=now, sa_type=UtcDateTime, sa_column_kwargs={"onupdate": now})
