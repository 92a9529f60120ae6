"""The audit: what is compared with what should be, what was found, and what became of it."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel

AUDIT = "audit"
"""The workflow type, the ID of the Schedule that starts it, and what the runs' workflow IDs begin with."""


class FindingKind(StrEnum):
    """What can be wrong. The comment says which side knows less than it should."""

    POWER_STATE = "power-state"  # the database has another power state than the hypervisor
    NO_GUEST = "no-guest"  # a server whose host has no guest of it
    NO_CLAIM = "no-claim"  # a server that its host keeps no claim for
    NO_ALLOCATION = "no-allocation"  # a server that the scheduler does not count on its host
    UNBOUND_PORT = "unbound-port"  # a server's port that its host did not make ready
    NO_EXPORT = "no-export"  # a volume in use that its host does not serve
    REMAINS = "remains"  # on a host, of a server that is not there: guest, claim, ports, allocation
    UNKNOWN_SERVER = "unknown-server"  # on a host, of a server that the database has never heard of
    FOREIGN_GUEST = "foreign-guest"  # a guest that this host did not spawn, by the guest's own record
    DELETED_SERVER = "deleted-server"  # rows of ports, disks or volumes that a deleted server still holds
    EXPORT = "export"  # a volume that is served to nobody
    NO_VOLUME_DATA = "no-volume-data"  # a volume's row without data on its host
    UNKNOWN_VOLUME = "unknown-volume"  # data or an export on a host, without a row
    STUCK_VOLUME = "stuck-volume"  # being made or deleted by no workflow
    NO_IMAGE_DATA = "no-image-data"  # an image's row without a file in the store
    UNKNOWN_IMAGE = "unknown-image"  # a file in the store, without a row
    STUCK_IMAGE = "stuck-image"  # being imported by no workflow, or for the shelf of a server that is not there
    CACHED_IMAGE = "cached-image"  # in a host's cache, and no longer in the catalogue
    STRAY_FILE = "stray-file"  # in a host's directories or the image store, and nothing's
    LOST_OPERATION = "lost-operation"  # a server's row that is held by a run that no longer exists
    UNKNOWN_OPERATION = "unknown-operation"  # a run that has been open for long, and does not hold its server's row
    OWED_WORK = "owed-work"  # a host that is up and still owes
    UNKNOWN_HOST = "unknown-host"  # a host whose worker is up, without a row


class AuditRequest(BaseModel):
    """Compare. `heal` None is the control worker's setting; `host` (name or UUID) None is everything.

    What is found counts when it is seen twice, `pause` apart.
    """

    heal: bool | None = None
    host: str | None = None
    pause: timedelta = timedelta(seconds=5)


class Finding(BaseModel):
    """One thing that is not as it should be.

    `subject` is its UUID (a stray file's path). `safe` says whether the audit may heal it, `healed` whether it did,
    `reason` why not, `remedy` what an operator can do.
    """

    kind: FindingKind
    subject: str
    server_id: str | None = None
    server: str | None = None
    host_id: str | None = None
    host: str | None = None
    found: str
    expected: str
    safe: bool = False
    healed: bool = False
    reason: str = ""
    remedy: str = ""


class NotAudited(BaseModel):
    """A host that could not be asked. Nothing that is on it was judged."""

    host_id: str
    host: str
    reason: str


class AuditReport(BaseModel):
    """What an audit found. `counts` is by kind and complete; `findings` is cut short after `more` were left out."""

    heal: bool
    host: str | None = None
    started_at: datetime
    finished_at: datetime
    hosts: int
    not_audited: list[NotAudited] = []
    findings: list[Finding] = []
    counts: dict[FindingKind, int] = {}
    healed: int = 0
    more: int = 0

    @property
    def unhealed(self) -> int:
        """How many findings are still there."""
        return sum(self.counts.values()) - self.healed
