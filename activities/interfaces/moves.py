"""Moves of a server to another host or flavor, on the control worker.

While a move is open its server has a former allocation, on its source, beside its own.
"""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import Field
from temporalio import activity

from activities.interfaces.plans import PlannedTarget
from activities.interfaces.servers import Begin, EventLog, ServerRef
from hostler.contract.guests import GuestDisk
from hostler.contract.servers import MigrationKind, Server
from hostler.contract.states import PowerState, VmState


class BeginMove(Begin):
    """Take a server for a move. `flavor` None: it keeps its own; `host` is where it must go."""

    kind: MigrationKind
    flavor: str | None = None
    host: str | None = None
    max_attempts: int | None = None
    confirm_after: timedelta | None = None


class MovePlan(PlannedTarget):
    """The guest as it will be. `excluded` are hosts that it must not go to, by UUID."""

    flavor: str
    excluded: list[str] = Field(default_factory=list)
    host: str | None = None
    confirm_after: timedelta


class FinishMove(ServerRef):
    """The server is on `host_id`, with these disks, and waits to be confirmed."""

    host_id: str
    power_state: PowerState
    disks: list[GuestDisk]
    confirm_after: timedelta
    events: EventLog


class EndMove(ServerRef):
    """The move is over, and the server in this state."""

    vm_state: VmState
    power_state: PowerState
    events: EventLog


class Moves(ABC):
    """Owner of the migration rows."""

    @activity.defn(name="begin_move")
    @abstractmethod
    def begin_move(self, call: BeginMove) -> MovePlan:
        """Take the server, check flavor and quota, and let it keep its allocation as the former one.

        What ends the operation otherwise, `settle`, takes that back.

        Raises:
            NotFound, InvalidState, ServerBusy, InvalidRequest, QuotaExceeded
        """

    @activity.defn(name="finish_move")
    @abstractmethod
    def finish_move(self, call: FinishMove) -> Server:
        """The server is what it was to become, and waits to be confirmed or reverted."""

    @activity.defn(name="confirm_move")
    @abstractmethod
    def confirm_move(self, call: EndMove) -> Server:
        """The server stays as it is: its former allocation is given back."""

    @activity.defn(name="revert_move")
    @abstractmethod
    def revert_move(self, call: EndMove) -> Server:
        """The server is where and what it was, by one change: allocation, host, flavor, disks."""
