"""Work on all servers of a host: a drain moves them off, and the failure of a host has them evacuated."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel

from hostler.contract.servers import OperationName

DRAIN_HOST = "drain-host"
HOST_FAILURE = "host-failure"
WATCH_HOSTS = "watch-hosts"
"""A workflow type and, since there is one such workflow in a cloud, its ID."""

RUNBOOK = "too-many-hosts-lost"
"""The page of deploy/runbooks for whoever the watch calls."""

EVACUATE_KEY = "hostler:evacuate"
"""In the metadata of a server or an aggregate: whether it is evacuated when its host fails, "true" or "false"."""
PRIORITY_KEY = "hostler:evacuation_priority"
"""In the metadata of a server: an integer, -100 to 100; servers with a higher one are evacuated first."""


class MoveState(StrEnum):
    """Where a server of the host stands. `SKIPPED`: it could not be tried; `FAILED`: it was, or ended the work."""

    PENDING = "pending"
    MOVING = "moving"
    MOVED = "moved"
    SKIPPED = "skipped"
    FAILED = "failed"


class ServerMove(BaseModel):
    """One of the host's servers: the `operation` that was last asked for, where it went `to`, or why not (`reason`)."""

    server_id: str
    name: str
    project: str
    state: MoveState = MoveState.PENDING
    operation: OperationName | None = None
    to: str | None = None
    reason: str = ""


class KeptVolume(BaseModel):
    """A volume whose data is on the host, and the server that uses it, wherever that is."""

    volume_id: str
    name: str
    server_id: str
    server: str
    project: str


class DrainRequest(BaseModel):
    """Move all servers off the host, `parallel` at a time (None is the control worker's setting).

    It ends at the first that cannot be moved, unless it may `skip` such. `reason` says why the host is disabled.
    """

    host_id: str
    request_id: str
    parallel: int | None = None
    skip: bool = False
    reason: str | None = None


class HostFailureRequest(BaseModel):
    """Evacuate the host, `parallel` servers at a time (None is the control worker's setting).

    `automatic`: the watch asks, for the servers that are to be evacuated by policy. Otherwise an operator does, for
    all; with `force` the operator says that the host is surely off, and it is not fenced.
    """

    host_id: str
    request_id: str
    parallel: int | None = None
    force: bool = False
    automatic: bool = False


class HostWorkCall(BaseModel):
    """The update that asks for such work; whoever brings another `request_id` joins the work that runs.

    To join an evacuation widens it, for good: to `everything`, where it was begun by policy; with `force`, whoever
    joins says that the host is surely off. The rest stays as it was begun.
    """

    request_id: str
    everything: bool = False
    force: bool = False


class HostWorkAccepted(BaseModel):
    """The answer. `joined`: it ran already."""

    host_id: str
    host: str
    run_id: str
    joined: bool = False


class HostProgress(BaseModel):
    """How far such work is. `stopped` says why nothing more begins.

    `volumes`, of a drain: those that the host keeps and that servers use, as they were when it began, or when the last
    server had left.
    """

    host_id: str
    host: str = ""
    stage: str = ""
    servers: list[ServerMove] = []
    stopped: str = ""
    volumes: list[KeptVolume] = []
    done: bool = False


class HostOutcome(BaseModel):
    """What became of the host's servers. `left` were not begun, since it `stopped` before."""

    host_id: str
    host: str
    moved: list[ServerMove] = []
    skipped: list[ServerMove] = []
    failed: list[ServerMove] = []
    left: list[ServerMove] = []
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether every server is off the host."""
        return not (self.skipped or self.failed or self.left or self.stopped)


class DrainResult(HostOutcome):
    """What became of a drain. As long as there are `volumes` in use that the host keeps, it must stay on.

    None: it was ended by a control worker of an older release, which does not say.
    """

    volumes: list[KeptVolume] | None = None


class HostFailureResult(HostOutcome):
    """What became of an evacuation. `fenced`: it is known that the host is off."""

    fenced: bool = False

    @property
    def spared(self) -> bool:
        """Whether nothing was done to the host, nor to its servers."""
        return bool(self.stopped) and not (self.fenced or self.moved or self.skipped or self.failed or self.left)


class SilentHost(BaseModel):
    """A host that is not heard, as the watch remembers it.

    `since` when; `servers` are on it, of which `wanted` are to be evacuated by policy. `begun` is when its failure was
    begun, `stuck` why that came to nothing, `stuck_since` when: it is not tried again by itself.
    """

    id: str
    name: str
    since: datetime
    servers: int = 0
    wanted: int = 0
    begun: datetime | None = None
    stuck: str = ""
    stuck_since: datetime | None = None


class FailedHost(BaseModel):
    """A host whose failure the watch has had dealt with, since when it was `begun`."""

    id: str
    name: str
    begun: datetime


class LeftOnHost(BaseModel):
    """A host that was declared down, and has servers that are to be evacuated by policy, as the watch remembers it.

    It is asked again `pause` after `tried`, which is when it was seen so first, or asked last.
    """

    id: str
    name: str
    wanted: int
    tried: datetime
    pause: timedelta
    times: int = 0


class AlarmKind(StrEnum):
    """What a person is called for: so many hosts are lost that none is evacuated; a host's failure came to nothing."""

    HOSTS_LOST = "hosts-lost"
    HOST_STUCK = "host-stuck"


class Alarm(BaseModel):
    """What a person is called for, `since` when; of a kind that is about one host, which that is."""

    kind: AlarmKind
    since: datetime
    message: str
    host_id: str = ""
    host: str = ""

    @property
    def key(self) -> str:
        """The same as long as it lasts, and no other alarm's."""
        return ":".join(filter(None, (self.kind, self.host_id, f"{self.since:%Y%m%dT%H%M%S.%f}")))


class WatchState(BaseModel):
    """What the watch knows. `limit` is how long a host must be silent, `alarm` why it evacuates nothing, since when.

    It looks every `interval`. `left` are hosts that are down for sure, where something is still to be evacuated.
    `failed` are those of late. The failures of those `under_way` are being dealt with. `calls` are the alarms for which
    a person is to be called with the next look.
    """

    looked_at: datetime | None = None
    interval: timedelta = timedelta(0)
    limit: timedelta = timedelta(0)
    silent: list[SilentHost] = []
    alarm: str = ""
    alarm_since: datetime | None = None
    left: list[LeftOnHost] = []
    failed: list[FailedHost] = []
    under_way: list[str] = []
    calls: list[Alarm] = []


class WatchedState(StrEnum):
    """What the watch makes of a host that it misses, or has missed.

    `LEFT`: it is down for sure, and servers are left there. `COUNTS`: its failure is over, and it counts as lost.
    """

    SILENT = "silent"
    EVACUATING = "evacuating"
    STUCK = "stuck"
    LEFT = "left"
    COUNTS = "counts"


class WatchedHost(BaseModel):
    """A host that the watch misses, or has missed, and what is done about it, `since` when.

    `servers` are on it, if it is known, of which `wanted` are to be evacuated by policy.
    """

    id: str
    name: str
    state: WatchedState
    since: datetime | None = None
    servers: int | None = None
    wanted: int | None = None
    doing: str


class HostFailures(BaseModel):
    """What is done about hosts that fail, as of the last look. `alarm` says why nothing is, `alarm_since` since when.

    `late`: the next look is overdue.
    """

    looked_at: datetime | None = None
    late: bool = False
    alarm: str = ""
    alarm_since: datetime | None = None
    hosts: list[WatchedHost] = []

    @property
    def calls(self) -> bool:
        """Whether it goes on only when a person has seen to it."""
        return bool(self.alarm) or any(host.state is WatchedState.STUCK for host in self.hosts)
