"""Rebuilds of a server on its host, on the control worker."""

from abc import ABC, abstractmethod

from pydantic import Field
from temporalio import activity

from activities.interfaces.plans import PlannedTarget
from activities.interfaces.servers import Begin, EventLog, ServerRef
from hostler.contract.servers import Server
from hostler.contract.states import PowerState, VmState


class BeginRebuild(Begin):
    """Take a server to be made anew. None keeps what there is; empty takes it away."""

    image: str | None = None
    key_name: str | None = None
    user_data: str | None = Field(default=None, repr=False)
    admin_password: str | None = Field(default=None, repr=False)
    preserve_ephemeral: bool = False


class RebuildPlan(PlannedTarget):
    """The guest as it will be. `image_name` and `key_name` are what the server's row will say."""

    image_name: str | None
    key_name: str | None


class FinishRebuild(ServerRef):
    """The server is made anew. `public_keys` None are those of its key pair; `user_data` None keeps what there is."""

    vm_state: VmState
    power_state: PowerState
    image_id: str
    image_name: str | None
    key_name: str | None
    public_keys: dict[str, str] | None = None
    user_data: str | None = Field(default=None, repr=False)
    events: EventLog


class Rebuilds(ABC):
    """What a rebuild does to the server's row."""

    @activity.defn(name="begin_rebuild")
    @abstractmethod
    def begin_rebuild(self, call: BeginRebuild) -> RebuildPlan:
        """Take the server, and see that the image suits it.

        Raises:
            NotFound, InvalidState, ServerBusy, InvalidRequest, Conflict
            NoValidHost: the server's host has no room for the image.
        """

    @activity.defn(name="finish_rebuild")
    @abstractmethod
    def finish_rebuild(self, call: FinishRebuild) -> Server:
        """Its row says what it is now."""
