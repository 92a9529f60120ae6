"""The filters: each says which hosts may take the server, and in words what is wrong with the others.

What the request asks for comes first, then the hosts' state, then their room: a host is reported once, for the first
reason, and the order makes that the one that matters.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from hostler.contract.errors import FilterReport
from scheduler.host_state import HostState, canonical_architecture
from scheduler.request import SchedulingRequest

NAMED = 10
"""Hosts that a report names."""

QEMU = ("qemu", "kvm")


@dataclass(frozen=True, slots=True)
class Filter:
    """`reason` tells what is wrong with the hosts that do not pass."""

    name: str
    reason: str
    passes: Callable[[HostState], bool]

    def apply(self, hosts: list[HostState]) -> tuple[list[HostState], FilterReport | None]:
        """The hosts that pass, and a report of those that do not, if any."""
        passed = [host for host in hosts if self.passes(host)]
        removed = len(hosts) - len(passed)
        if not removed:
            return passed, None
        named = islice((host.name for host in hosts if not self.passes(host)), NAMED)
        return passed, FilterReport(filter=self.name, removed=removed, hosts=list(named), reason=self.reason)


def all_filters(request: SchedulingRequest, alive: frozenset[str]) -> list[Filter]:
    """Every filter for `request`, in order. `alive` are the hosts whose worker answers."""
    return [*wish_filters(request), alive_filter(alive), *state_filters(), *room_filters(request)]


def all_pass(checks: Iterable[Filter]) -> Callable[[HostState], bool]:
    """Whether a host passes all of `checks`; a plain loop, because it runs for every host of the cloud."""
    tests = [check.passes for check in checks]

    def test(host: HostState) -> bool:
        for passes in tests:  # noqa: SIM110 - `all` takes three times as long
            if not passes(host):
                return False
        return True

    return test


def explain(hosts: list[HostState], checks: Iterable[Filter]) -> list[FilterReport]:
    """What each filter removed of what the filters before it had left."""
    reports = []
    for check in checks:
        hosts, report = check.apply(hosts)
        if report:
            reports.append(report)
    return reports


def wish_filters(request: SchedulingRequest) -> Iterator[Filter]:
    """What the request asks for, as far as it asks."""
    if request.host is not None:
        yield host_filter(request.host)
    if request.zone is not None:
        yield zone_filter(request.zone)
    if request.excluded:
        yield excluded_filter(request.excluded)
    yield from image_filters(request.architecture, request.hypervisor_type)


def image_filters(architecture: str | None, hypervisor_type: str | None) -> Iterator[Filter]:
    """What the image asks for, as far as it asks: of a server's own host too, when it is to get another image."""
    if architecture is not None:
        yield architecture_filter(architecture)
    if hypervisor_type is not None:
        yield hypervisor_filter(hypervisor_type)


def state_filters() -> Iterator[Filter]:
    """What makes a host unfit for any new server."""
    yield Filter("enabled", "disabled by an operator", lambda host: host.enabled)
    yield Filter("declared_down", "declared down", lambda host: not host.down)
    yield Filter("owed_work", "waiting for the clean-up of earlier servers", lambda host: host.owed == 0)


def room_filters(request: SchedulingRequest) -> Iterator[Filter]:
    """Whether the server fits."""
    yield size_filter(request)
    yield ram_filter(request.ram_mib)
    yield vcpu_filter(request.vcpus)
    yield disk_filter(request.disk_gib)


def host_filter(wanted: str) -> Filter:
    """The host asked for, by name or UUID."""
    return Filter("host", f"not {wanted}", lambda host: wanted in (host.name, host.id))


def zone_filter(zone: str) -> Filter:
    """The availability zone asked for."""
    return Filter("availability_zone", f"not in availability zone {zone}", lambda host: host.zone == zone)


def excluded_filter(excluded: frozenset[str]) -> Filter:
    """Hosts that this operation has not been on yet."""
    return Filter("excluded", "already tried, or to be left", lambda host: host.id not in excluded)


def architecture_filter(wanted: str) -> Filter:
    """The processor that the image is made for."""
    name = canonical_architecture(wanted)
    return Filter("architecture", f"not of architecture {name}", lambda host: host.architecture == name)


def hypervisor_filter(wanted: str) -> Filter:
    """The hypervisor that the image is made for.

    Images say "kvm" or "qemu", while libvirt, and so Nova, calls a host of either kind "QEMU": to us they are one.
    """
    name = wanted.lower()
    accepted = QEMU if name in QEMU else (name,)
    return Filter("hypervisor_type", f"without hypervisor {name}", lambda host: host.hypervisor_type in accepted)


def alive_filter(alive: frozenset[str]) -> Filter:
    """Hosts whose worker answers."""
    return Filter("alive", "not answering", lambda host: host.id in alive)


def size_filter(request: SchedulingRequest) -> Filter:
    """Overcommit is for many servers: a single one is never larger than the machine itself. So it is in Nova."""
    vcpus, ram_mib, disk_gib = request.vcpus, request.ram_mib, request.disk_gib
    return Filter(
        "size",
        f"without {vcpus} vCPUs, {ram_mib} MiB of RAM and {disk_gib} GiB of disk even when empty",
        lambda host: vcpus <= host.vcpus and ram_mib <= host.ram_mib and disk_gib <= host.disk_gib,
    )


def ram_filter(ram_mib: int) -> Filter:
    """Enough memory."""
    return Filter("ram", f"with less than {ram_mib} MiB of RAM free", lambda host: ram_mib <= host.free_ram_mib)


def vcpu_filter(vcpus: int) -> Filter:
    """Enough virtual CPUs."""
    return Filter("vcpus", f"with fewer than {vcpus} vCPUs free", lambda host: vcpus <= host.free_vcpus)


def disk_filter(disk_gib: int) -> Filter:
    """Enough disk. A server without a local disk goes where the disk is overfull, too."""
    return Filter(
        "disk",
        f"with less than {disk_gib} GiB of disk free",
        lambda host: not disk_gib or disk_gib <= host.free_disk_gib,
    )
