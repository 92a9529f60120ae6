"""Hosts: registration and owed work, on the control worker."""

from abc import ABC, abstractmethod
from typing import Any

from pydantic import BaseModel
from temporalio import activity

from hostler.contract.resources import HostRegistration


class OwedWork(BaseModel):
    """An undo that a host could not be asked for; done when it returns, before it takes new work."""

    id: str
    host_id: str
    server_id: str | None
    activity: str
    argument: dict[str, Any]
    reason: str


class OwedId(BaseModel):
    """One piece of owed work."""

    id: str
    host_id: str


class Hosts(ABC):
    """Owner of the host and owed work rows."""

    @activity.defn(name="register_host")
    @abstractmethod
    def register_host(self, call: HostRegistration) -> list[OwedWork]:
        """Write what the host says of itself; answer what it owes."""

    @activity.defn(name="owe")
    @abstractmethod
    def owe(self, call: OwedWork) -> None:
        """Remember what a host owes; it takes no new work until then."""

    @activity.defn(name="settle_owed")
    @abstractmethod
    def settle_owed(self, call: OwedId) -> None:
        """The host has done it."""
