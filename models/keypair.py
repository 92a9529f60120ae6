"""Key pairs: the public keys that servers offer to their guests."""

from sqlmodel import Field

from hostler.contract.names import DEFAULT_PROJECT
from models.base import LongText, Table


class KeyPair(Table, table=True):
    """A public key.

    Owner: the catalogue calls.
    """

    project: str = Field(default=DEFAULT_PROJECT, primary_key=True)
    name: str = Field(primary_key=True)
    public_key: str = Field(sa_type=LongText)
    fingerprint: str
