"""A migration as libvirt counts it on the host that the guest leaves: how far it is, how it ended. All calls block."""

from datetime import timedelta
from enum import Enum, StrEnum, auto
from typing import Any, NamedTuple

import libvirt

from drivers.hypervisor.libvirt.connection import ignoring, libvirt_errors
from drivers.hypervisor.libvirt.domains import GONE
from hostler.contract.errors import InvalidState, Unavailable
from hostler.contract.guests import MigrationReport

MIB = 1 << 20
KEEP = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
INCOMING = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
HANDED_OVER_BY = (libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)


class Place(Enum):
    """Where a guest is, as its domain on the host that it leaves shows."""

    RUNNING = auto()
    PAUSED = auto()
    AWAY = auto()
    """Another host has it; it cannot run here again."""
    OFF = auto()


class Forced(StrEnum):
    """What was done so that a migration ends soon."""

    POST_COPY = "the guest goes on at its next host, and fetches the rest of its memory"
    SOON = "the guest goes on at its next host as soon as its disks are there"
    STILL = "the guest stands still until it is there"


class Progress(NamedTuple):
    """How far a migration is, in bytes; `expected` is how long the guest would stand still if it ended now.

    `passes` is how often its memory has been gone through, this time included.
    """

    elapsed: timedelta
    memory_left: int
    disk_left: int
    moved: int
    rate: int
    expected: timedelta
    passes: int

    @classmethod
    def of(cls, job: dict[str, Any]) -> "Progress":
        """From libvirt's statistics. Figures that do not exist yet are 0."""
        return cls(
            timedelta(milliseconds=job.get("time_elapsed", 0)),
            job.get("memory_remaining", 0),
            job.get("disk_remaining", 0),
            job.get("data_processed", 0),
            job.get("memory_bps", 0) + job.get("disk_bps", 0),
            timedelta(milliseconds=job.get("downtime", 0)),
            job.get("memory_iteration", 0),
        )

    def __str__(self) -> str:
        left = self.memory_left + self.disk_left
        percent = 100 * self.moved // max(self.moved + left, 1)
        return (
            f"migrating: {percent} %, {self.memory_left // MIB} MiB of memory and {self.disk_left // MIB} MiB of disks "
            f"to go, {self.rate // MIB} MiB/s, {self.expected.total_seconds():.1f} s of standing still to be expected"
        )


def place(domain: libvirt.virDomain) -> Place:
    """Where the guest is."""
    state, reason = libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN
    with libvirt_errors(Unavailable), ignoring(libvirt.VIR_ERR_NO_DOMAIN):
        state, reason = domain.state()
    match state:
        case libvirt.VIR_DOMAIN_PAUSED if reason in HANDED_OVER_BY:
            return Place.AWAY
        case libvirt.VIR_DOMAIN_PAUSED | libvirt.VIR_DOMAIN_PMSUSPENDED:
            return Place.PAUSED
        case libvirt.VIR_DOMAIN_SHUTOFF if reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED:
            return Place.AWAY
        case libvirt.VIR_DOMAIN_SHUTOFF | libvirt.VIR_DOMAIN_CRASHED:
            return Place.OFF
    return Place.RUNNING


def post_copy_failed(domain: libvirt.virDomain) -> bool:
    """Whether some of the guest is there, some here, and nothing between them any more: libvirt keeps such a job."""
    return _stands_still(domain, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)


def crossing(domain: libvirt.virDomain) -> bool:
    """Whether the guest runs on its next host, which still fetches memory from here: it is lost if that breaks off."""
    return _stands_still(domain, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY) and under_way(domain) is not None


def can_be_ended(domain: libvirt.virDomain) -> bool:
    """Whether a migration is under way of which the guest still runs here."""
    return not crossing(domain) and under_way(domain) is not None


def under_way(domain: libvirt.virDomain) -> Progress | None:
    """How far the migration is; None when there is none."""
    job: dict[str, Any] = {}
    with libvirt_errors(Unavailable), ignoring(*GONE):
        job = domain.jobStats()
    return Progress.of(job) if _is_migration(job) else None


def abort(domain: libvirt.virDomain) -> bool:
    """Ask libvirt to end the migration, if one is under way. In post-copy there is no way back; it goes on then."""
    if under_way(domain) is None:
        return False
    with libvirt_errors(Unavailable), ignoring(*GONE, libvirt.VIR_ERR_OPERATION_FAILED):
        domain.abortJob()
    return True


def force(domain: libvirt.virDomain, *, patient: bool) -> Forced:
    """Let the guest run on its next host from now on where the migration can do that, else pause it.

    QEMU cannot do that while only the disks travel: whoever is `patient` is told SOON, and asks again.

    Raises:
        InvalidState: no migration is under way.
    """
    progress = under_way(domain)
    if progress is None:
        raise InvalidState("no migration is under way", remedy="see how it ended: hostler server show")
    with libvirt_errors(InvalidState):
        try:
            domain.migrateStartPostCopy()
            return Forced.POST_COPY
        except libvirt.libvirtError as error:  # OPERATION_INVALID: it was not begun with the flag for that
            if patient and error.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR and not progress.memory_left:
                return Forced.SOON
        if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            domain.suspend()
        return Forced.STILL


def resume(domain: libvirt.virDomain) -> None:
    """Let a guest run on that a migration left paused."""
    with libvirt_errors(Unavailable), ignoring(*GONE):
        domain.resume()


def forget_completed(domain: libvirt.virDomain) -> None:
    """Drop the statistics of an earlier job."""
    with libvirt_errors(Unavailable), ignoring(*GONE):
        domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)


def completed(domain: libvirt.virDomain) -> MigrationReport | None:
    """How the last migration went, until the guest was there, if libvirt still knows, be it there or here."""
    job: dict[str, Any] = {}
    with libvirt_errors(Unavailable), ignoring(*GONE):
        job = domain.jobStats(KEEP)
    if job.get("operation") not in (libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, INCOMING):
        return None
    return MigrationReport(
        duration=timedelta(milliseconds=job.get("time_elapsed", 0)),
        downtime=timedelta(milliseconds=job.get("downtime_net", job.get("downtime", 0))),
        memory_bytes=job.get("memory_processed", 0),
        disk_bytes=job.get("disk_processed", 0),
    )


def _stands_still(domain: libvirt.virDomain, reason: int) -> bool:
    """Whether the guest is paused for this reason."""
    found: bool = False
    with libvirt_errors(Unavailable), ignoring(libvirt.VIR_ERR_NO_DOMAIN):
        found = bool(domain.state() == [libvirt.VIR_DOMAIN_PAUSED, reason])
    return found


def _is_migration(job: dict[str, Any]) -> bool:
    if job.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return False
    return bool(job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
