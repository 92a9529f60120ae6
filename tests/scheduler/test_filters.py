"""Each filter keeps the hosts that may take the server, and says what is wrong with the others."""

from typing import Any

import pytest

from scheduler.filters import NAMED, Filter, all_filters, all_pass, explain
from tests.scheduler.hosts import a_request, a_state, ids


def the_filter(name: str, request: dict[str, Any], alive: frozenset[str] = frozenset({"id-host"})) -> Filter:
    return next(check for check in all_filters(a_request(**request), alive) if check.name == name)


@pytest.mark.parametrize(
    ("name", "request_", "fits", "does_not"),
    [
        ("host", {"host": "alpha"}, {"name": "alpha"}, {"name": "beta"}),
        ("host", {"host": "id-1"}, {"id": "id-1"}, {"id": "id-2"}),
        ("availability_zone", {"zone": "north"}, {"zone": "north"}, {"zone": "south"}),
        ("excluded", {"excluded": frozenset({"id-1"})}, {"id": "id-2"}, {"id": "id-1"}),
        ("architecture", {"architecture": "aarch64"}, {"architecture": "aarch64"}, {"architecture": "x86_64"}),
        ("hypervisor_type", {"hypervisor_type": "QEMU"}, {"hypervisor_type": "qemu"}, {"hypervisor_type": "lxc"}),
        ("hypervisor_type", {"hypervisor_type": "lxc"}, {"hypervisor_type": "lxc"}, {"hypervisor_type": "qemu"}),
        ("alive", {}, {"id": "id-host"}, {"id": "id-dead"}),
        ("enabled", {}, {"enabled": True}, {"enabled": False}),
        ("declared_down", {}, {"down": False}, {"down": True}),
        ("owed_work", {}, {"owed": 0}, {"owed": 1}),
        ("size", {"vcpus": 4}, {"vcpus": 4}, {"vcpus": 3, "free_vcpus": 64}),
        ("size", {"ram_mib": 4096}, {"ram_mib": 4096}, {"ram_mib": 4095, "free_ram_mib": 65536}),
        ("size", {"disk_gib": 40}, {"disk_gib": 40}, {"disk_gib": 39, "free_disk_gib": 1000}),
        ("ram", {"ram_mib": 4096}, {"free_ram_mib": 4096}, {"free_ram_mib": 4095}),
        ("vcpus", {"vcpus": 2}, {"free_vcpus": 2}, {"free_vcpus": 1}),
        ("disk", {"disk_gib": 20}, {"free_disk_gib": 20}, {"free_disk_gib": 19}),
    ],
)
def test_a_filter_tells_hosts_apart(
    name: str, request_: dict[str, Any], fits: dict[str, Any], does_not: dict[str, Any]
) -> None:
    check = the_filter(name, request_)
    assert check.passes(a_state(**fits))
    assert not check.passes(a_state(**does_not))


def test_a_server_without_a_local_disk_goes_where_the_disk_is_overfull() -> None:
    assert the_filter("disk", {"disk_gib": 0}).passes(a_state(free_disk_gib=-5))


@pytest.mark.parametrize("wanted", ["kvm", "qemu", "QEMU"])
@pytest.mark.parametrize("offered", ["kvm", "qemu"])
def test_qemu_and_kvm_are_one(wanted: str, offered: str) -> None:
    assert the_filter("hypervisor_type", {"hypervisor_type": wanted}).passes(a_state(hypervisor_type=offered))


def test_other_peoples_names_for_an_architecture_are_understood() -> None:
    assert the_filter("architecture", {"architecture": "AMD64"}).passes(a_state(architecture="x86_64"))


def test_what_is_not_asked_for_is_not_filtered() -> None:
    names = [check.name for check in all_filters(a_request(), frozenset())]
    assert names == ["alive", "enabled", "declared_down", "owed_work", "size", "ram", "vcpus", "disk"]


def test_a_host_is_reported_once_for_the_first_reason() -> None:
    hosts = [a_state("good"), a_state("far", zone="south", enabled=False), a_state("off", enabled=False)]
    reports = explain(hosts, all_filters(a_request(zone="nova"), ids(hosts)))
    assert [(report.filter, report.removed, report.hosts) for report in reports] == [
        ("availability_zone", 1, ["far"]),
        ("enabled", 1, ["off"]),
    ]
    assert reports[0].reason == "not in availability zone nova"


def test_a_report_counts_all_hosts_and_names_a_few() -> None:
    hosts = [a_state(f"h{number}", free_ram_mib=0) for number in range(50)]
    (report,) = explain(hosts, all_filters(a_request(), ids(hosts)))
    assert report.removed == 50
    assert report.hosts == [f"h{number}" for number in range(NAMED)]
    assert report.reason == "with less than 1024 MiB of RAM free"


def test_all_must_pass() -> None:
    checks = all_filters(a_request(), frozenset({"id-host"}))
    assert all_pass(checks)(a_state())
    assert not all_pass(checks)(a_state(free_vcpus=0))
