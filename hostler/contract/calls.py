"""Calls that need no workflow: reads, and changes of the catalogue that one transaction makes.

Each is an activity of the control worker that the client starts on its own (a standalone activity), so it leaves no
workflow behind. Changes carry their own ID, so a repeated call is the same call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from hostler.contract.names import DEFAULT_PROJECT
from hostler.contract.resources import Aggregate, Flavor, Host, Image, KeyPair, Network, Quota, Volume
from hostler.contract.servers import MigrationKind, MigrationStatus, Server, ServerEvent, ServerMigration
from hostler.contract.states import PowerState

Request = TypeVar("Request", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Call(Generic[Request, Result]):
    """A call's name on the wire with the types of its request and result."""

    name: str
    request: type[Request]
    result: type[Result]


class Nothing(BaseModel):
    """No content."""


class Ref(BaseModel):
    """One thing of a project, by name or UUID."""

    ref: str
    project: str = DEFAULT_PROJECT


class Filter(BaseModel):
    """Which things of a project to list."""

    project: str = DEFAULT_PROJECT
    all_projects: bool = False


class ServerFilter(Filter):
    """Which servers to list. `host` is a name or UUID; deleted ones show only when asked for."""

    status: str | None = None
    host: str | None = None
    name: str | None = None
    deleted: bool = False


MAX_MIGRATIONS = 500
"""As many as one answer has room for: Temporal carries at most 2 MiB."""


class MigrationFilter(Filter):
    """Which moves of servers to list: the `limit` latest, of those behind `after` (a move's ID) in the list.

    `host` is the source or the target. Host and server are names or UUIDs; a deleted server is named by UUID.
    """

    host: str | None = None
    server: str | None = None
    kind: MigrationKind | None = None
    status: MigrationStatus | None = None
    limit: int = MAX_MIGRATIONS
    after: str | None = None


class HostState(BaseModel):
    """Whether the scheduler may use a host."""

    ref: str
    enabled: bool
    reason: str | None = None


class HostDown(BaseModel):
    """Somebody's word that a host's machine is off. `fenced`: it was seen to, and is not only said."""

    ref: str
    reason: str
    fenced: bool = False


class AggregateMember(BaseModel):
    """A host that comes into an aggregate, or leaves it."""

    ref: str
    host: str


class MetadataChange(BaseModel):
    """What changes in metadata; None takes a key away."""

    metadata: dict[str, str | None]

    def applied(self, before: Mapping[str, str]) -> dict[str, str]:
        """The metadata as they are to be."""
        return {key: value for key, value in ({**before} | self.metadata).items() if value is not None}


class AggregateMetadata(MetadataChange):
    """What changes in an aggregate's."""

    ref: str


class ServerMetadata(MetadataChange, Ref):
    """What changes in a server's."""


class ConsoleRequest(BaseModel):
    """The end of a server's console log."""

    server_id: str
    max_bytes: int = 100_000


class HostIdentity(BaseModel):
    """A machine that asks whether it is the host `id`."""

    id: str
    machine_id: str


class GuestPower(BaseModel):
    """A guest's power state. `version` is the one of the server's row that was known before the state was looked at."""

    server_id: str
    power_state: PowerState
    version: str | None = None


class PowerReport(BaseModel):
    """The power states that a host sees now, of guests that it did not itself bring there.

    `confirms`: the host looks again where the receipt asks it to; older workers do not.
    """

    host_id: str
    guests: list[GuestPower]
    confirms: bool = False


class PowerReceipt(BaseModel):
    """The servers that an operation held: the host reports them again.

    `doubted` are those whose rows say otherwise, with the rows' versions. The report may have been on its way for long,
    so the host looks again, knowing the version, and reports at once.
    """

    busy: list[str] = []
    doubted: dict[str, str] = {}


LIST_SERVERS = Call("list_servers", ServerFilter, list[Server])
SHOW_SERVER = Call("show_server", Ref, Server)
SET_SERVER = Call("set_server", ServerMetadata, Server)
LIST_EVENTS = Call("list_events", Ref, list[ServerEvent])
LIST_MIGRATIONS = Call("list_migrations", MigrationFilter, list[ServerMigration])

CREATE_FLAVOR = Call("create_flavor", Flavor, Flavor)
LIST_FLAVORS = Call("list_flavors", Filter, list[Flavor])
SHOW_FLAVOR = Call("show_flavor", Ref, Flavor)
DELETE_FLAVOR = Call("delete_flavor", Ref, Nothing)

LIST_IMAGES = Call("list_images", Filter, list[Image])
SHOW_IMAGE = Call("show_image", Ref, Image)
DELETE_IMAGE = Call("delete_image", Ref, Nothing)

CREATE_NETWORK = Call("create_network", Network, Network)
LIST_NETWORKS = Call("list_networks", Filter, list[Network])
SHOW_NETWORK = Call("show_network", Ref, Network)
DELETE_NETWORK = Call("delete_network", Ref, Nothing)

LIST_VOLUMES = Call("list_volumes", Filter, list[Volume])
SHOW_VOLUME = Call("show_volume", Ref, Volume)

LIST_HOSTS = Call("list_hosts", Nothing, list[Host])
SHOW_HOST = Call("show_host", Ref, Host)
SET_HOST = Call("set_host", HostState, Host)
DECLARE_DOWN = Call("declare_down", HostDown, Host)
NEW_MACHINE = Call("new_machine", Ref, Host)

CREATE_AGGREGATE = Call("create_aggregate", Aggregate, Aggregate)
LIST_AGGREGATES = Call("list_aggregates", Nothing, list[Aggregate])
SHOW_AGGREGATE = Call("show_aggregate", Ref, Aggregate)
DELETE_AGGREGATE = Call("delete_aggregate", Ref, Nothing)
ADD_AGGREGATE_HOST = Call("add_aggregate_host", AggregateMember, Aggregate)
REMOVE_AGGREGATE_HOST = Call("remove_aggregate_host", AggregateMember, Aggregate)
SET_AGGREGATE = Call("set_aggregate", AggregateMetadata, Aggregate)

# What host workers ask and report.
ADMIT_HOST = Call("admit_host", HostIdentity, Nothing)
REPORT_POWER_STATES = Call("report_power_states", PowerReport, PowerReceipt)

SHOW_QUOTA = Call("show_quota", Filter, Quota)
SET_QUOTA = Call("set_quota", Quota, Quota)

CREATE_KEYPAIR = Call("create_keypair", KeyPair, KeyPair)
LIST_KEYPAIRS = Call("list_keypairs", Filter, list[KeyPair])
SHOW_KEYPAIR = Call("show_keypair", Ref, KeyPair)
DELETE_KEYPAIR = Call("delete_keypair", Ref, Nothing)

# Answered by the worker of the server's host, on that host's queue.
CONSOLE_LOG = Call("console_log", ConsoleRequest, str)

# Workflows of the catalogue, by their type's name; each runs under its thing's own workflow ID.
CREATE_IMAGE = "create-image"
CREATE_VOLUME = "create-volume"
DELETE_VOLUME = "delete-volume"
REGISTER_HOST = "register-host"
