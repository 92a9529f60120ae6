"""How libvirt is asked to move a guest, and what is made of its figures."""

from datetime import timedelta

import libvirt
import pytest

from drivers.hypervisor.libvirt.migration_call import allow_downtime, flags, parameters
from drivers.hypervisor.libvirt.migration_job import Progress
from drivers.hypervisor.libvirt.peers import connect, in_uri, migration_uri
from drivers.hypervisor.libvirt.standstill import Standstill
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import Incoming, MigrationLimits, MigrationReport

MIB = 1 << 20


def incoming(*disks: str, whole: bool = False, address: str = "192.0.2.7") -> Incoming:
    uri = migration_uri(address)
    return Incoming(
        server_id="s", uri=uri, address=address, live="<l/>", persistent="<p/>", disks=list(disks), whole=whole
    )


class TestFlags:
    def test_the_guest_arrives_paused_over_tls_and_its_source_keeps_it(self) -> None:
        found = flags(incoming(), MigrationLimits())
        for flag in (libvirt.VIR_MIGRATE_PAUSED, libvirt.VIR_MIGRATE_TLS, libvirt.VIR_MIGRATE_PERSIST_DEST):
            assert found & flag
        assert not found & libvirt.VIR_MIGRATE_UNDEFINE_SOURCE

    @pytest.mark.parametrize(
        ("to", "flag"),
        [
            (incoming(), 0),
            (incoming("vda"), libvirt.VIR_MIGRATE_NON_SHARED_INC),
            (incoming("vda", whole=True), libvirt.VIR_MIGRATE_NON_SHARED_DISK),
        ],
    )
    def test_disks_go_with_what_they_have_of_their_image_if_they_must(self, to: Incoming, flag: int) -> None:
        both = libvirt.VIR_MIGRATE_NON_SHARED_INC | libvirt.VIR_MIGRATE_NON_SHARED_DISK
        assert flags(to, MigrationLimits()) & both == flag

    def test_libvirt_does_not_take_post_copy_and_paused_together(self) -> None:
        found = flags(incoming(), MigrationLimits(post_copy=True))
        assert found & libvirt.VIR_MIGRATE_POSTCOPY
        assert not found & libvirt.VIR_MIGRATE_PAUSED

    def test_only_what_was_seen_to_be_shared_is_moved_without_libvirt_s_own_look(self) -> None:
        assert not flags(incoming("vda"), MigrationLimits()) & libvirt.VIR_MIGRATE_UNSAFE
        shared = incoming().model_copy(update={"shared": True})
        assert flags(shared, MigrationLimits()) & libvirt.VIR_MIGRATE_UNSAFE

    def test_auto_converge(self) -> None:
        assert flags(incoming(), MigrationLimits(auto_converge=True)) & libvirt.VIR_MIGRATE_AUTO_CONVERGE


class Allowed:
    """A domain that keeps what it is told, in milliseconds."""

    milliseconds = 0

    def migrateSetMaxDowntime(self, milliseconds: int) -> None:  # noqa: N802 - libvirt's name
        self.milliseconds = milliseconds


class TestDowntime:
    @pytest.mark.parametrize(("passes", "milliseconds"), [(0, 240), (1, 240), (2, 280), (4, 360), (5, 400), (60, 400)])
    def test_a_guest_may_stand_still_for_longer_with_each_pass_over_its_memory(
        self, passes: int, milliseconds: int
    ) -> None:
        domain = Allowed()
        allow_downtime(domain, MigrationLimits(downtime=timedelta(seconds=0.4)), passes=passes)
        assert domain.milliseconds == milliseconds

    def test_never_for_no_time_at_all(self) -> None:
        domain = Allowed()
        allow_downtime(domain, MigrationLimits(downtime=timedelta(0)), passes=1)
        assert domain.milliseconds == 1


class TestParameters:
    def test_only_the_named_disks_and_only_the_named_address(self) -> None:
        assert parameters(incoming("vda", "vdc"), MigrationLimits(bandwidth_mib=7)) == {
            "migrate_uri": "tcp://192.0.2.7",
            "listen_address": "192.0.2.7",
            "destination_xml": "<l/>",
            "persistent_xml": "<p/>",
            "migrate_disks": ["vda", "vdc"],
            "bandwidth": 7,
        }

    def test_without_disks_and_limits(self) -> None:
        assert {"migrate_disks", "bandwidth"}.isdisjoint(parameters(incoming(), MigrationLimits()))

    def test_an_ipv6_address_is_put_in_brackets(self) -> None:
        assert in_uri("2001:db8::7") == "[2001:db8::7]"
        assert migration_uri("2001:db8::7") == "qemu+tls://[2001:db8::7]/system"


class TestProgress:
    def test_what_people_read(self) -> None:
        job = {
            "memory_remaining": 50 * MIB,
            "disk_remaining": 25 * MIB,
            "data_processed": 25 * MIB,
            "memory_bps": 8 * MIB,
            "disk_bps": 2 * MIB,
            "downtime": 400,
        }
        assert str(Progress.of(job)) == (
            "migrating: 25 %, 50 MiB of memory and 25 MiB of disks to go, 10 MiB/s, "
            "0.4 s of standing still to be expected"
        )

    def test_before_there_are_figures(self) -> None:
        assert str(Progress.of({})).startswith("migrating: 0 %")


class TestStandstill:
    def test_what_was_not_seen_is_libvirt_s_word(self) -> None:
        known = MigrationReport(duration=timedelta(seconds=9), downtime=timedelta(seconds=1), memory_bytes=5)
        assert Standstill().corrected(known, timedelta(seconds=2), MigrationLimits()) == known

    def test_nothing_is_known(self) -> None:
        found = Standstill().corrected(None, timedelta(seconds=2), MigrationLimits())
        assert found.duration == timedelta(seconds=2)


def test_a_host_that_is_not_there_is_refused_with_what_to_do() -> None:
    with pytest.raises(RescheduleError, match="cannot connect to qemu") as refusal:
        connect("qemu+tls://127.0.0.1:1/system", RescheduleError)
    assert "virsh --connect" in (refusal.value.remedy or "")
