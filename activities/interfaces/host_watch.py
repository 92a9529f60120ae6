"""What the watch over hosts asks and does: who is silent, is it really, and power it off."""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.servers import HostRef


class LookAtHosts(BaseModel):
    """`begun` are the hosts whose failures were begun: what has become of these?"""

    begun: list[str] = []


class Missing(BaseModel):
    """A host that is not heard, with its `servers`, of which `wanted` are to be evacuated by policy."""

    id: str
    name: str
    servers: int
    wanted: int


class HostsLook(BaseModel):
    """What a look has seen, and the settings as they are now.

    `missing` are hosts with servers that are not heard, and of which nobody has said that they are down or disabled.
    `under_way` are hosts whose failure is being dealt with; `ended` says of those that were begun and are over why they
    came to nothing, or nothing.
    """

    missing: list[Missing] = []
    under_way: list[str] = []
    ended: dict[str, str] = {}
    interval: timedelta
    silence: timedelta
    max_hosts: int


class Fencing(BaseModel):
    """The outcome: `back` says that the host was heard again, so that nothing was done to it."""

    back: bool = False


class HostWatch(ABC):
    """Looks at hosts as a whole."""

    @activity.defn(name="look_at_hosts")
    @abstractmethod
    async def look_at_hosts(self, call: LookAtHosts) -> HostsLook:
        """Who is silent now."""

    @activity.defn(name="host_answers")
    @abstractmethod
    async def host_answers(self, call: HostRef) -> bool:
        """Whether the host takes a question. It is asked over its own task queue, whatever its heartbeats say."""

    @activity.defn(name="fence_host")
    @abstractmethod
    async def fence_host(self, call: HostRef) -> Fencing:
        """Make sure that the host is off, by the command of the settings.

        Raises:
            InvalidRequest: there is no such command. Unavailable: it failed; it may succeed when tried again.
        """
