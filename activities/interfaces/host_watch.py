"""What the watch over hosts asks and does: who is silent, is it really, and power it off."""

from abc import ABC, abstractmethod
from datetime import datetime, timedelta

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import HostRef
from hostler.contract.host_work import Alarm


class LookAtHosts(BaseModel):
    """`begun` are the hosts whose failures were begun: what has become of these?

    A person is to be called for `alarms`, and the answer is not waited for.
    """

    begun: list[str] = []
    alarms: list[Alarm] = []


class Missing(BaseModel):
    """A host that is not heard, with its `servers`, if any, of which `wanted` are to be evacuated by policy."""

    id: str
    name: str
    servers: int
    wanted: int


class Left(BaseModel):
    """A host that was declared down, with servers that are to be evacuated by policy; `free` are in no operation."""

    id: str
    name: str
    wanted: int
    free: int


class HostsLook(BaseModel):
    """What a look has seen, and the settings as they are now.

    `missing` are hosts that are not heard, and of which nobody has said that they are down or disabled; so many are
    `heard` (None: a control worker of an older version has looked). `under_way` are hosts whose failure is being dealt
    with; `ended` says of those that were begun and are over why they came to nothing, or nothing. `left` are hosts
    that are down for sure, where something is still to be evacuated. `spared` are those begun that turned out to be
    there, and were left alone. `called` are the keys of the alarms that were seen to.
    """

    missing: list[Missing] = []
    heard: int | None = None
    left: list[Left] = []
    under_way: list[str] = []
    ended: dict[str, str] = {}
    spared: list[str] = []
    called: list[str] = []
    interval: timedelta
    silence: timedelta
    max_hosts: int
    window: timedelta = timedelta(0)


class Fencing(BaseModel):
    """The outcome: `back` says that the host was heard again, so that nothing was done to it.

    `registered_at`: its last registration when it was off. Only a newer one says that it has returned.
    """

    back: bool = False
    registered_at: datetime | None = None


class HostWatch(ABC):
    """Looks at hosts as a whole."""

    @activity.defn(name="look_at_hosts")
    @abstractmethod
    async def look_at_hosts(self, call: LookAtHosts) -> HostsLook:
        """Who is silent now."""

    @activity.defn(name="call_person")
    @abstractmethod
    async def call_person(self, call: Alarm) -> None:
        """Run the command of the settings that calls a person, if there is one. A look begins it, and no workflow.

        Raises:
            Unavailable: it failed, or cannot be run on this control worker; it may succeed when tried again.
        """

    @activity.defn(name="host_answers")
    @abstractmethod
    async def host_answers(self, call: HostRef) -> bool:
        """Whether the host takes a question. It is asked over its own task queue, whatever its heartbeats say."""

    @activity.defn(name="fence_host")
    @abstractmethod
    async def fence_host(self, call: HostRef) -> Fencing:
        """Make sure that the host is off, by the command of the settings.

        Raises:
            InvalidRequest: there is no such command, or it might power another host off. Unavailable: it failed; it may
                succeed when tried again.
        """
