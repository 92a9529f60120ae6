"""Guests and the claims that they need, on their host."""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import ServerRef
from hostler.contract.guests import ClaimSpec, GuestSpec
from hostler.contract.states import PowerState


class StopGuest(BaseModel):
    """Power off; zero `timeout` pulls the plug at once."""

    server_id: str
    timeout: timedelta


class RebootGuest(StopGuest):
    """Reboot; `hard` resets at once."""

    hard: bool


class Claims(ABC):
    """The host's veto over the scheduler's idea of it."""

    @activity.defn(name="claim_resources")
    @abstractmethod
    async def claim_resources(self, call: ClaimSpec) -> None:
        """Claim memory, disk and CPUs.

        Raises:
            RescheduleError: they are not there.
        """

    @activity.defn(name="drop_claim")
    @abstractmethod
    async def drop_claim(self, call: ServerRef) -> None:
        """Give the claim back."""


class Guests(ABC):
    """The guests of one host."""

    @activity.defn(name="spawn")
    @abstractmethod
    async def spawn(self, call: GuestSpec) -> None:
        """Disks, config drive, domain; started paused."""

    @activity.defn(name="destroy_guest")
    @abstractmethod
    async def destroy_guest(self, call: ServerRef) -> None:
        """Remove all of it."""

    @activity.defn(name="resume_guest")
    @abstractmethod
    async def resume_guest(self, call: ServerRef) -> PowerState:
        """Let it run."""

    @activity.defn(name="start_guest")
    @abstractmethod
    async def start_guest(self, call: ServerRef) -> PowerState:
        """Power on."""

    @activity.defn(name="stop_guest")
    @abstractmethod
    async def stop_guest(self, call: StopGuest) -> PowerState:
        """Power off, softly if it obeys in time."""

    @activity.defn(name="reboot_guest")
    @abstractmethod
    async def reboot_guest(self, call: RebootGuest) -> PowerState:
        """Reboot."""
