"""Guests and the claims that they need, on their host."""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import ServerRef
from hostler.contract.guests import ClaimSpec, DisksOffer, GuestSpec
from hostler.contract.states import PowerState


class StopGuest(BaseModel):
    """Power off; zero `timeout` pulls the plug at once."""

    server_id: str
    timeout: timedelta


class RebootGuest(StopGuest):
    """Reboot; `hard` resets at once."""

    hard: bool


class ExpectGuest(ServerRef):
    """A guest that must be here, unless it `may_be_gone`; `former`: set aside, or `in_place` again."""

    former: bool = False
    in_place: bool = True
    may_be_gone: bool = False


class OfferDisks(ServerRef):
    """Disks to serve; `flatten`: the root disk without its image, which the next host cannot have."""

    flatten: bool = False


class SetAsideClaim(ServerRef):
    """The claim of a server that moves; `leaves`: certainly to another host, which has to get its disks from here."""

    leaves: bool = False


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

    @activity.defn(name="set_aside_claim")
    @abstractmethod
    async def set_aside_claim(self, call: SetAsideClaim) -> None:
        """Keep the claim as the server's former one, beside which it may have another here.

        Raises:
            RescheduleError: the server is to leave, and no other host could get its disks.
        """

    @activity.defn(name="bring_back_claim")
    @abstractmethod
    async def bring_back_claim(self, call: ServerRef) -> None:
        """The former claim, if there is one, is the server's again, and takes the place of another."""

    @activity.defn(name="drop_former_claim")
    @abstractmethod
    async def drop_former_claim(self, call: ServerRef) -> None:
        """Give the former claim back."""


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

    @activity.defn(name="set_aside_guest")
    @abstractmethod
    async def set_aside_guest(self, call: ServerRef) -> None:
        """Keep the guest, off, where nothing starts it: another one of the server can take its place."""

    @activity.defn(name="bring_back_guest")
    @abstractmethod
    async def bring_back_guest(self, call: ServerRef) -> None:
        """The guest that was set aside, if there is one, takes its place again, off; one that is there is removed."""

    @activity.defn(name="drop_former_guest")
    @abstractmethod
    async def drop_former_guest(self, call: ServerRef) -> None:
        """Remove the guest that was set aside."""

    @activity.defn(name="expect_guest")
    @abstractmethod
    async def expect_guest(self, call: ExpectGuest) -> PowerState:
        """See that the guest is here; NOSTATE is one that may be gone, and is.

        Raises:
            InvalidState: it is not.
        """

    @activity.defn(name="offer_disks")
    @abstractmethod
    async def offer_disks(self, call: OfferDisks) -> DisksOffer:
        """Serve the disks of the guest that was set aside."""

    @activity.defn(name="withdraw_offer")
    @abstractmethod
    async def withdraw_offer(self, call: ServerRef) -> None:
        """Serve them no longer."""

    @activity.defn(name="receive_disks")
    @abstractmethod
    async def receive_disks(self, call: DisksOffer) -> None:
        """Fetch what another host offers; `destroy_guest` removes it."""

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
