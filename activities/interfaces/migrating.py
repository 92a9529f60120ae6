"""Guests that move while they run, on the two hosts."""

from abc import ABC, abstractmethod

from temporalio import activity

from activities.interfaces.servers import ServerRef
from hostler.contract.guests import (
    Arrival,
    GuestDescription,
    GuestSpec,
    Incoming,
    MigrationLimits,
    MigrationReport,
    Whereabouts,
)
from hostler.contract.states import PowerState


class PrepareIncoming(ServerRef):
    """A guest that is to come; with `post_copy` it may have to run before all of it is there."""

    guest: GuestSpec
    description: GuestDescription
    post_copy: bool = False


class MigrateGuest(ServerRef):
    """A guest that is to go."""

    incoming: Incoming
    limits: MigrationLimits


class LookForArrival(ServerRef):
    """A guest that was to come. `refuse`: one of which something is missing shall not come any more."""

    refuse: bool = False


class TakeOver(ServerRef):
    """A guest that has come. `anew`: it is not to go on, but to boot: its memory may be older than its volumes."""

    anew: bool = False


class Migrating(ABC):
    """The guests of one host that come and go while they run."""

    @activity.defn(name="describe_guest")
    @abstractmethod
    async def describe_guest(self, call: ServerRef) -> GuestDescription:
        """What the next host must know of it.

        Raises:
            InvalidState: it does not run, or cannot move while it does.
        """

    @activity.defn(name="prepare_incoming")
    @abstractmethod
    async def prepare_incoming(self, call: PrepareIncoming) -> Incoming:
        """Empty disks and the config drive; `destroy_guest` removes them.

        Raises:
            RescheduleError: this host cannot take it in.
        """

    @activity.defn(name="migrate_guest")
    @abstractmethod
    async def migrate_guest(self, call: MigrateGuest) -> MigrationReport:
        """Send it there; it runs there when this returns, and no longer here."""

    @activity.defn(name="end_migration")
    @abstractmethod
    async def end_migration(self, call: ServerRef) -> Whereabouts:
        """End what is still under way, and say where the guest is."""

    @activity.defn(name="take_over")
    @abstractmethod
    async def take_over(self, call: TakeOver) -> PowerState:
        """Let it run here: its former host has given it up, or is down.

        Raises:
            NotFound: it has not come, or not as a whole.
        """

    @activity.defn(name="look_for_arrival")
    @abstractmethod
    async def look_for_arrival(self, call: LookForArrival) -> Arrival:
        """What there is of a guest that was to come."""

    @activity.defn(name="keep_guest")
    @abstractmethod
    async def keep_guest(self, call: ServerRef) -> None:
        """The guest that is off here is the server's after all: it can be started again."""

    @activity.defn(name="force_complete")
    @abstractmethod
    async def force_complete(self, call: ServerRef) -> None:
        """Have the migration end soon, at the price of the guest's standing still.

        Raises:
            InvalidState: none is under way.
        """
