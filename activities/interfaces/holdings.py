"""What a host holds, as it sees itself: for the audit, and for a host that comes back."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from hostler.contract.states import PowerState


class GuestHolding(BaseModel):
    """A guest. `host_id` is the host that spawned it, by the guest's own record; None when the record does not say.

    A guest of another UUID is one that this machine ran before it was re-imaged, or a copy of somebody else's disk.
    """

    server_id: str
    power_state: PowerState
    host_id: str | None = None


class PortHolding(BaseModel):
    """A port that is bound here."""

    port_id: str
    server_id: str


class HoldingsQuery(BaseModel):
    """All that the host has."""


class Holdings(BaseModel):
    """What a host has now. `strays` are files in the host's own directories that belong to nothing else of it.

    `formers` are servers of which it keeps a guest or a claim that was set aside. `shares_images`: other hosts have the
    same cache.
    """

    host_id: str
    claims: list[str] = []
    formers: list[str] = []
    guests: list[GuestHolding] = []
    ports: list[PortHolding] = []
    volumes: list[str] = []
    exports: list[str] = []
    images: list[str] = []
    shares_images: bool = False
    strays: list[str] = []


class HostHoldings(ABC):
    """The host's own book."""

    @activity.defn(name="list_holdings")
    @abstractmethod
    async def list_holdings(self, call: HoldingsQuery) -> Holdings:
        """What is here, by looking: not what the host remembers to have been told."""
