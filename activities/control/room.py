"""The allocation of a server whose root disk is made anew: under a flavor without a size it is as large as its image.

The claim on the host is left as it is: it is taken anew where the server is built next.
"""

from collections.abc import Sequence

from sqlmodel import Session

from activities.control.guest_plans import disks_of, gib_of
from hostler.contract.errors import NoValidHost
from hostler.contract.guests import GuestDisk
from models import Allocation, Image, Server, bump_generation
from scheduler.filters import Filter, disk_filter, explain
from scheduler.host_state import read_states


def take_room(session: Session, row: Server, image: Image, disks: Sequence[GuestDisk]) -> None:
    """Until it is known whether the server has these disks or its former ones, the larger ones count.

    Raises:
        NoValidHost: they grow, and the server's host has no room for that.
    """
    wanted, present = gib_of(disks), gib_of(disks_of(session, row))
    allocation = _allocation(session, row)
    if allocation is None or allocation.disk_gib >= max(wanted, present):
        return
    bump_generation(session, allocation.host_id)  # before the sums are read: nobody else takes the room meanwhile
    if wanted > present:
        _check_room(session, row, image, allocation, wanted)
    allocation.disk_gib = max(wanted, present)


def match_disks(session: Session, row: Server) -> None:
    """The server takes of its host what its disks take."""
    allocation, present = _allocation(session, row), gib_of(disks_of(session, row))
    if allocation is not None and allocation.disk_gib != present:
        bump_generation(session, allocation.host_id)
        allocation.disk_gib = present


def _allocation(session: Session, row: Server) -> Allocation | None:
    return session.get(Allocation, (row.id, row.host_id, False))


def _check_room(session: Session, row: Server, image: Image, allocation: Allocation, wanted: int) -> None:
    """By the rules by which the scheduler finds room for a new server."""
    size = Filter("size", f"without {wanted} GiB of disk even when empty", lambda host: wanted <= host.disk_gib)
    checks = [size, disk_filter(wanted - allocation.disk_gib)]
    for report in explain(read_states(session, [allocation.host_id]), checks):
        raise NoValidHost(
            f"host {report.hosts[0]} of server {row.name} has no room for image {image.name}, with which the server's "
            f"disks take {wanted} GiB instead of {allocation.disk_gib}: it is {report.reason}",
            field="image",
            value=image.name,
            remedy="choose a smaller one: hostler image list; or migrate the server to a host with more room first",
            hosts_considered=1,
            filters=[report],
        )
