"""Evacuations of a server from a host that was declared down, on the control worker."""

from abc import ABC, abstractmethod

from temporalio import activity

from activities.interfaces.plans import PlannedTarget
from activities.interfaces.servers import Begin, EventLog, ServerRef
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, VmState


class BeginEvacuation(Begin):
    """Take a server away from its host. `host` is where it must go."""

    host: str | None = None
    max_attempts: int | None = None


class EvacuationPlan(PlannedTarget):
    """The guest as it is, its local disks of their images; where hosts share them, those that it had on its host.

    `hosts` are the one that is down, then those on which a move that was cut short had reserved. `stays_off`: it
    was stopped. `because` says since when the host is down, and why.
    """

    stays_off: bool = False
    because: str | None = None
    host: str | None = None


class FinishEvacuation(ServerRef):
    """The server is on `host_id`; `image_id` is its root disk's, where that is on the host."""

    host_id: str
    vm_state: VmState
    power_state: PowerState
    image_id: str | None = None
    events: EventLog


class Evacuations(ABC):
    """Owner of the rows of evacuations."""

    @activity.defn(name="begin_evacuation")
    @abstractmethod
    async def begin_evacuation(self, call: BeginEvacuation) -> EvacuationPlan:
        """Take the server, let it keep its allocation as the former one, and let its host owe that the guest is off.

        What ends the operation otherwise, `settle`, takes the allocation back; what is owed stays so.

        A move that was cut short is taken back, and so is one whose revert was, if its target has nothing left of the
        server. One that waits to be decided on, and of which no host that is up has anything, is confirmed; but where
        what the server was before is on another host, that stays there until the end.

        Raises:
            NotFound, InvalidState, ServerBusy, InvalidRequest, Conflict
            Unavailable: its host seems to answer, although it was declared down.
        """

    @activity.defn(name="finish_evacuation")
    @abstractmethod
    def finish_evacuation(self, call: FinishEvacuation) -> Server:
        """The server is on its new host, and its former allocation is given back: by one change.

        Where it waited to be decided on, the host of what it was before owes the removal of that.
        """
