"""Live migrations and evacuations of a server, on the control worker: its row, allocation and migration."""

from abc import ABC, abstractmethod
from datetime import timedelta

from pydantic import Field
from temporalio import activity

from activities.interfaces.plans import PlannedTarget
from activities.interfaces.servers import Begin, EventLog, ServerRef
from hostler.contract.guests import MigrationLimits
from hostler.contract.servers import Server, TimeoutAction
from hostler.contract.states import PowerState


class BeginLiveMigration(Begin):
    """Take a server in order to move it while it runs. None is the control worker's setting."""

    host: str | None = None
    max_attempts: int | None = None
    completion_timeout: timedelta | None = None
    timeout_action: TimeoutAction | None = None


class LiveMigrationPlan(PlannedTarget):
    """The guest as it is, and how it is to move. `excluded` are hosts that it must not go to, by UUID."""

    excluded: list[str] = Field(default_factory=list)
    host: str | None = None
    migration: MigrationLimits


class FinishLiveMigration(ServerRef):
    """The server is on `host_id`."""

    host_id: str
    power_state: PowerState
    events: EventLog


class LiveMigrations(ABC):
    """Owner of the rows of live migrations."""

    @activity.defn(name="begin_live_migration")
    @abstractmethod
    def begin_live_migration(self, call: BeginLiveMigration) -> LiveMigrationPlan:
        """Take the server, and let it keep its allocation as the former one.

        What ends the operation otherwise, `settle`, takes that back.

        Raises:
            NotFound, InvalidState, ServerBusy, InvalidRequest
        """

    @activity.defn(name="finish_live_migration")
    @abstractmethod
    def finish_live_migration(self, call: FinishLiveMigration) -> Server:
        """The server is on its new host, and its former allocation is given back: by one change."""
