"""Work on all servers of a host: what is there, and what is to be done with each next."""

from abc import ABC, abstractmethod
from datetime import datetime, timedelta

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import HostRef
from hostler.contract.host_work import DrainRequest, HostFailureRequest, KeptVolume, ServerMove
from hostler.contract.servers import OperationName


class DrainPlan(BaseModel):
    """A drain that may begin. `patience` is for how long a server that is busy is asked again.

    `volumes`: those that the host keeps, and that servers use.
    """

    host: HostRef
    parallel: int
    patience: timedelta
    volumes: list[KeptVolume] = []


class FailurePlan(BaseModel):
    """An evacuation that may begin. `declared`: the host is down by somebody's word already, `fenced` as that says.

    `back`: the host is heard again. `registered_at`: its last registration. `settle`: for so long heartbeats may still
    come out that it sent before it was off.
    """

    host: HostRef
    declared: bool
    fenced: bool
    back: bool
    parallel: int
    patience: timedelta
    fence_timeout: timedelta
    registered_at: datetime | None = None
    settle: timedelta = timedelta(seconds=45)


class HostServers(BaseModel):
    """Whose servers to list: all that the host has something of, or those to evacuate, also on their way to it.

    `by_policy`: only those that are to be evacuated without anybody's asking.
    """

    host_id: str
    evacuation: bool = False
    by_policy: bool = False


class NextMove(BaseModel):
    """What is to be done with one of the host's servers now? `migrated`: this work has it in VERIFY_RESIZE."""

    host_id: str
    server_id: str
    evacuation: bool = False
    migrated: bool = False


class Move(BaseModel):
    """The answer: `done`, it is off the host (`to` where); else the `operation`, or the `reason` why there is none.

    `busy`: not now, another operation has it, of which `reason` may say more. `halt`: why nothing more is to be begun
    on this host. `volumes`: when the last server has left a host that is drained, those that it keeps all the same, and
    that servers use.
    """

    done: bool = False
    to: str | None = None
    operation: OperationName | None = None
    busy: bool = False
    reason: str = ""
    halt: str = ""
    volumes: list[KeptVolume] | None = None


class HostWork(ABC):
    """Reads servers and hosts; writes only that a host that is drained gets no new servers."""

    @activity.defn(name="plan_drain")
    @abstractmethod
    def plan_drain(self, call: DrainRequest) -> DrainPlan:
        """Check the request, and keep new servers off the host.

        Raises:
            InvalidRequest, NotFound: as they say. InvalidState: the host is down.
        """

    @activity.defn(name="plan_failure")
    @abstractmethod
    def plan_failure(self, call: HostFailureRequest) -> FailurePlan:
        """Check the request.

        Raises:
            InvalidRequest: there is no way to fence the host. NotFound: there is no such host.
        """

    @activity.defn(name="servers_of_host")
    @abstractmethod
    def servers_of_host(self, call: HostServers) -> list[ServerMove]:
        """The servers, in the order in which they are to be taken."""

    @activity.defn(name="next_move")
    @abstractmethod
    def next_move(self, call: NextMove) -> Move:
        """What is to be done with the server, as it is at this moment."""
