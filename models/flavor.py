"""Flavors: the sizes that servers come in."""

from sqlmodel import Field

from models.base import Table, Uuid


class Flavor(Table, table=True):
    """A size, in force for servers made from now on; those that exist keep their own snapshot.

    Owner: the catalogue calls, one transaction each.
    """

    id: str = Field(primary_key=True, sa_type=Uuid)
    name: str = Field(unique=True)
    vcpus: int
    ram_mib: int
    disk_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
