"""Choosing a host, on the control worker."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import HostRef
from hostler.contract.errors import FilterReport


class HostName(BaseModel):
    """A host by its name or UUID."""

    name: str


class Schedule(BaseModel):
    """A server in search of a host. `alternates` are tried before a new search, `excluded` never.

    Nothing is reserved once the run `run_id` no longer holds the server.
    """

    server_id: str
    run_id: str = ""
    vcpus: int
    ram_mib: int
    disk_gib: int
    zone: str | None = None
    host: str | None = None
    image_id: str | None = None
    architecture: str | None = None
    hypervisor_type: str | None = None
    alternates: list[str] = []
    excluded: list[str] = []


class Placement(BaseModel):
    """The host on which resources are now reserved, and whom to ask next."""

    host: HostRef
    alternates: list[str] = []


class Story(BaseModel):
    """Why there is no host left: what became of all that were considered."""

    considered: int
    filters: list[FilterReport]


class Allocation(BaseModel):
    """What a server has reserved on a host."""

    server_id: str
    host_id: str | None = None


class Scheduling(ABC):
    """Owner of the allocations."""

    @activity.defn(name="schedule")
    @abstractmethod
    def schedule(self, call: Schedule) -> Placement:
        """Filter, weigh, reserve.

        Raises:
            NoValidHost: with the story, filter by filter.
        """

    @activity.defn(name="locate")
    @abstractmethod
    def locate(self, call: HostName) -> HostRef:
        """The host of this name.

        Raises:
            NotFound; Conflict: several carry it.
        """

    @activity.defn(name="explain")
    @abstractmethod
    def explain(self, call: Schedule) -> Story:
        """What the filters say now; for the fault of a boot that gives up."""

    @activity.defn(name="release_allocation")
    @abstractmethod
    def release_allocation(self, call: Allocation) -> None:
        """Give the reservation back; all of the server's when no host is named."""
