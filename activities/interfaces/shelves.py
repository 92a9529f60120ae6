"""Servers on the shelf, on the control worker."""

from abc import ABC, abstractmethod

from temporalio import activity

from activities.interfaces.plans import PlannedTarget
from activities.interfaces.servers import Begin, EventLog, ServerRef
from hostler.contract.servers import Server
from hostler.contract.states import PowerState


class FinishShelve(ServerRef):
    """The server is on the shelf, `offloaded` from its host. `image_id` is its root disk; None: that is a volume."""

    image_id: str | None
    offloaded: bool
    events: EventLog


class FinishOffload(ServerRef):
    """The server has no host any more."""

    events: EventLog


class BeginUnshelve(Begin):
    """Take a server off the shelf; `availability_zone` and `host` are where to."""

    availability_zone: str | None = None
    host: str | None = None
    max_attempts: int | None = None


class UnshelvePlan(PlannedTarget):
    """The guest to bring back. `offloaded`: it must be built anew, in `availability_zone` or on `host`."""

    offloaded: bool
    availability_zone: str | None = None
    host: str | None = None


class FinishUnshelve(ServerRef):
    """The server runs on `host_id`."""

    host_id: str
    power_state: PowerState
    availability_zone: str | None = None
    events: EventLog


class Shelves(ABC):
    """What shelving does to the server's row."""

    @activity.defn(name="finish_shelve")
    @abstractmethod
    def finish_shelve(self, call: FinishShelve) -> Server:
        """SHELVED; or SHELVED_OFFLOADED, and its allocation given back."""

    @activity.defn(name="finish_offload")
    @abstractmethod
    def finish_offload(self, call: FinishOffload) -> Server:
        """SHELVED_OFFLOADED: allocation given back."""

    @activity.defn(name="forget_shelved")
    @abstractmethod
    def forget_shelved(self, call: ServerRef) -> None:
        """Remove the image that keeps the server's disk: the server is being deleted."""

    @activity.defn(name="begin_unshelve")
    @abstractmethod
    def begin_unshelve(self, call: BeginUnshelve) -> UnshelvePlan:
        """Take the server.

        Raises:
            NotFound, InvalidState, ServerBusy; Conflict: its image is gone.
        """

    @activity.defn(name="finish_unshelve")
    @abstractmethod
    def finish_unshelve(self, call: FinishUnshelve) -> Server:
        """ACTIVE; the image that kept its disk is removed."""
