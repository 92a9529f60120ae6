"""Hosts: registration and owed work, on the control worker."""

from abc import ABC, abstractmethod
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.holdings import HostHoldings
from activities.interfaces.servers import HostRef
from hostler.contract.resources import HostRegistration
from hostler.contract.states import PowerState


class OwedWork(BaseModel):
    """An undo that a host could not be asked for; done when it returns, before it takes new work."""

    id: str
    host_id: str
    server_id: str | None
    activity: str
    argument: dict[str, Any]
    reason: str


def account_of(host_id: str, reason: str) -> OwedWork:
    """What every host owes that registers: to say what it holds, so that what is left of former servers can go."""
    return OwedWork(
        id=str(uuid5(NAMESPACE_URL, f"{host_id}/holdings")),
        host_id=host_id,
        server_id=None,
        activity=HostHoldings.list_holdings.__name__,
        argument={},
        reason=reason,
    )


class OwedId(BaseModel):
    """One piece of owed work. Of one that switches a guest on or off also whose, and what the guest is since, if known.

    `failure` is why it cannot be done, ever. Control workers of former releases settle without these.
    """

    id: str
    host_id: str
    server_id: str | None = None
    power_state: PowerState | None = None
    failure: str | None = None


class Hosts(ABC):
    """Owner of the host and owed work rows."""

    @activity.defn(name="register_host")
    @abstractmethod
    def register_host(self, call: HostRegistration) -> list[OwedWork]:
        """Write what the host says of itself; answer what it owes, besides the account of what it holds.

        A registration takes the place of the one before it, wherever that was: servers that its account held are free.
        A host that was declared down is so no longer.

        Raises:
            Conflict: another machine is this host.
        """

    @activity.defn(name="declared_down")
    @abstractmethod
    def declared_down(self, call: HostRef) -> bool:
        """Whether it is certain that nothing runs on the host, by the word of whoever declared it down."""

    @activity.defn(name="owe")
    @abstractmethod
    def owe(self, call: OwedWork) -> None:
        """Remember what a host owes, or why it still does; it takes no new work until then."""

    @activity.defn(name="settle_owed")
    @abstractmethod
    def settle_owed(self, call: OwedId) -> None:
        """The host has done it, or cannot: an idle server follows its guest, and its events say so.

        While an operation has the server it stays owed, unless the row says so already: the operation cannot know what
        the host has done meanwhile, so that is done again, and followed, once it has ended.
        """
