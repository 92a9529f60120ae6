"""Servers: the state that their owners see."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, Index

from hostler.contract.names import DEFAULT_PROJECT
from hostler.contract.states import PowerState, TaskState, VmState
from models.base import Json, LongText, Table, UtcDateTime, Uuid, enumerated, now


class Server(Table, table=True):
    """A server. A deleted one keeps its row, `vm_state` deleted and `deleted_at` set, and gives its quota back.

    `flavor` is a contract `Flavor` as it was at boot, `fault` a contract `Fault`, `hold` a contract `Hold`.
    `shelved_image_id` is the image that its root disk became when it was shelved.
    `request_fingerprint` tells a repeated request from another one with the same UUID. `user_data` is base64, encrypted
    where there is a key. `public_keys` is the key pair `key_name` as it was when the server was given it, by name.

    Owner: the run named by `operation_id`. It takes the row by compare-and-set from None (or from a run that is over),
    and nobody else writes here meanwhile, but for the metadata, which its tenants change at any time.
    """

    __table_args__ = (
        Index(None, "project", "name"),
        # Covers the sums of `quota_use`, so that they read the index alone.
        Index("ix_server_quota_use", "project", "deleted_at", "vm_state", "launched_at", "vcpus", "ram_mib"),
    )

    id: str = Field(primary_key=True, sa_type=Uuid)
    project: str = DEFAULT_PROJECT
    name: str = Field(index=True)
    vm_state: VmState = Field(default=VmState.BUILDING, sa_type=enumerated(VmState))
    task_state: TaskState | None = Field(default=None, sa_type=enumerated(TaskState))
    power_state: PowerState = Field(default=PowerState.NOSTATE, sa_type=enumerated(PowerState))
    flavor: dict[str, Any] = Field(sa_type=Json)
    flavor_id: str = Field(sa_type=Uuid)
    flavor_name: str
    vcpus: int
    ram_mib: int
    image_id: str | None = Field(default=None, sa_type=Uuid)
    image_name: str | None = None
    host_id: str | None = Field(default=None, foreign_key="host.id", index=True, sa_type=Uuid)
    availability_zone: str | None = None
    key_name: str | None = None
    public_keys: dict[str, str] | None = Field(default=None, sa_type=Json)
    user_data: str | None = Field(default=None, sa_type=LongText, repr=False)
    metadata_: dict[str, str] = Field(
        default_factory=dict, sa_type=Json, sa_column_kwargs={"name": "metadata"}
    )  # `metadata` is SQLAlchemy's own
    config_drive: bool = True
    fault: dict[str, Any] | None = Field(default=None, sa_type=Json)
    hold: dict[str, Any] | None = Field(default=None, sa_type=Json)
    operation_id: str | None = Field(default=None, sa_type=Uuid)
    request_fingerprint: str = ""
    created_at: datetime = Field(default_factory=now, sa_type=UtcDateTime)
    launched_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    shelved_image_id: str | None = Field(default=None, sa_type=Uuid)
    shelved_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=now, sa_type=UtcDateTime, sa_column_kwargs={"onupdate": now})
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
