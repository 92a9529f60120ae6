"""Judges a host's volumes, exports, cached images and files."""

from collections.abc import Iterator

from activities.control.audit.facts import Facts, is_busy
from activities.control.audit.suspecting import stray, suspect
from activities.interfaces.audit import Evidence, Suspicion
from activities.interfaces.holdings import Holdings
from activities.interfaces.servers import HostRef
from hostler.contract.audit import FindingKind
from hostler.contract.resources import VolumeStatus
from models import Server, Volume

UNDER_WAY = {VolumeStatus.CREATING, VolumeStatus.DELETING}
NEVER = "data is never removed by the audit"


def judge_storage(host: HostRef, holdings: Holdings, facts: Facts) -> Iterator[Suspicion]:
    """Everything about disks and files on this host."""
    here, served = set(holdings.volumes), set(holdings.exports)
    for volume_id in sorted((here | served) - facts.owed):
        volume = facts.volumes.get(volume_id)
        if volume is None or volume.host_id != host.id:
            yield _unknown(host, volume_id, volume, volume_id in here, volume_id in served)
    for volume in facts.volumes.values():
        if volume.host_id == host.id and volume.status not in UNDER_WAY and volume.id not in facts.owed:
            yield from _volume(host, volume, volume.id in here, volume.id in served, facts)
    yield from _images(host, holdings, facts)
    for path in holdings.strays:
        yield stray(path, "a file that belongs to nothing", "the host", host)


def _unknown(host: HostRef, volume_id: str, volume: Volume | None, data: bool, served: bool) -> Suspicion:
    what = " and ".join(["its data"] * data + ["an export"] * served)
    where = f"is kept by host {volume.host_id}" if volume else "the database has never heard of"
    return suspect(
        FindingKind.UNKNOWN_VOLUME,
        volume_id,
        f"{what} of a volume that {where}",
        "not there, or a row",
        host=host,
        reason=NEVER,
        remedy="see deploy/runbooks/leaked-thing.md and database-restored.md",
    )


def _volume(host: HostRef, volume: Volume, here: bool, served: bool, facts: Facts) -> Iterator[Suspicion]:
    server = facts.servers.get(volume.server_id) if volume.server_id else None
    if server is not None and is_busy(server):
        return
    if not here:
        yield suspect(
            FindingKind.NO_VOLUME_DATA,
            volume.id,
            f"the volume is {volume.status}, and its host has no data of it",
            "its data",
            server=server,
            host=host,
            reason="data cannot be made again from nothing",
            remedy=f"hostler volume delete {volume.id}",
        )
    elif served and (server is None or server.deleted_at is not None):
        yield _export(host, volume, server)
    elif not served and server is not None and server.deleted_at is None and server.host_id is not None:
        yield suspect(
            FindingKind.NO_EXPORT,
            volume.id,
            f"the volume is {volume.status}, and its host does not serve it",
            "served to its server",
            server=server,
            host=host,
            reason="what ended it is not known",
            remedy=f"restart the worker of host {host.name}, which serves again what it served",
        )


def _export(host: HostRef, volume: Volume, server: Server | None) -> Suspicion:
    """Served, and no server has it. Only where a server that is deleted had it, it is known why."""
    safe = server is not None
    return suspect(
        FindingKind.EXPORT,
        volume.id,
        f"the volume is served, and {volume.status}" + (" by a deleted server" if safe else ""),
        "not served",
        server=server,
        host=host,
        safe=safe,
        reason="" if safe else "a guest may use it: the database may be older than its attachment",
        remedy="hostler audit --heal" if safe else "see deploy/runbooks/leaked-thing.md",
    )


def _images(host: HostRef, holdings: Holdings, facts: Facts) -> Iterator[Suspicion]:
    """A disk may stand on a cached image, so all that is on the host must be understood before one is removed."""
    understood = not holdings.strays and all(guest.server_id in facts.servers for guest in holdings.guests)
    for image_id in holdings.images:
        if image_id not in facts.images | facts.images_in_use:
            yield suspect(
                FindingKind.CACHED_IMAGE,
                image_id,
                "in the cache, and neither in the catalogue nor in use here",
                "not there",
                host=host,
                safe=understood,
                reason="" if understood else "a disk that is not understood may stand on it",
                remedy=f"hostler audit --heal --host {host.id}" if understood else "see the host's other findings",
                evidence=Evidence(shared=holdings.shares_images),
            )
