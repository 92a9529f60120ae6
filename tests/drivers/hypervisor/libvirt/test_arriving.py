"""What a host checks before it takes in a guest that runs elsewhere, and what it says of one that has not come.

One machine has one libvirt, which does not send a guest to itself: the move as such is for the lab.
"""

from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.migration_call import make_ready
from hostler.contract.errors import InvalidState, NotFound, RescheduleError
from hostler.contract.guests import (
    Arrival,
    DescribedDisk,
    GuestDescription,
    GuestSpec,
    MigrationLimits,
    VolumeConnection,
    Whereabouts,
)
from hostler.contract.resources import DiskFormat
from tests.conftest import free_port
from tests.drivers.hypervisor.libvirt.guests import domain_of, guest, ignore, root_disk

pytestmark = pytest.mark.real


@pytest.fixture
async def described(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> GuestDescription:
    """A guest that runs, by its host's word."""
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    return await hypervisor.describe(tiny.server_id)


class TestDescribe:
    async def test_what_the_next_host_must_know(self, tiny: GuestSpec, described: GuestDescription) -> None:
        assert described.disks == [
            DescribedDisk(target="vda", file="disk", size_bytes=1 << 20, disk_format=DiskFormat.QCOW2)
        ]
        assert described.virt_type == "qemu"
        assert described.hypervisor_version > 1_000_000
        assert tiny.server_id in described.live
        assert tiny.server_id in described.persistent

    async def test_one_that_is_paused_or_off_is_refused(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
    ) -> None:
        await hypervisor.spawn(tiny, tiny_image, ignore)
        with pytest.raises(InvalidState, match="paused") as refusal:
            await hypervisor.describe(tiny.server_id)
        assert refusal.value.remedy == f"start it anew: hostler server reboot --hard {tiny.server_id}"
        domain_of(tiny).destroy()
        with pytest.raises(InvalidState, match="off"):
            await hypervisor.describe(tiny.server_id)

    async def test_one_whose_file_systems_are_frozen_is_refused(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        hypervisor._files(tiny.server_id).freezing.touch()
        with pytest.raises(InvalidState, match="frozen"):
            await hypervisor.describe(tiny.server_id)

    async def test_no_guest(self, hypervisor: LibvirtHypervisor) -> None:
        with pytest.raises(NotFound):
            await hypervisor.describe(guest(root_disk()).server_id)


def older(found: GuestDescription) -> GuestDescription:
    return found.model_copy(update={"hypervisor_version": 999_000_000})


def kvm(found: GuestDescription) -> GuestDescription:
    return found.model_copy(update={"virt_type": "kvm"})


def other_processor(found: GuestDescription) -> GuestDescription:
    return found.model_copy(update={"live": found.live.replace("Nehalem", "Cascadelake-Server")})


def huge(found: GuestDescription) -> GuestDescription:
    [disk] = found.disks
    return found.model_copy(update={"disks": [disk.model_copy(update={"size_bytes": 1 << 60})]})


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (older, "older one"),
            (kvm, "runs under kvm"),
            (other_processor, "Host CPU does not provide required features"),
            (huge, "no room"),
            (GuestDescription.model_copy, "no guest can come from another host to 127.0.0.1"),
        ],
    )
    async def test_a_guest_that_cannot_run_here_or_cannot_come(
        self,
        hypervisor: LibvirtHypervisor,
        next_dir: Path,
        described: GuestDescription,
        changed: Callable[[GuestDescription], GuestDescription],
        reason: str,
    ) -> None:
        other = guest(root_disk())
        with pytest.raises(RescheduleError, match=reason) as refusal:
            await hypervisor.prepare_incoming(other, changed(described), None, ignore, post_copy=False)
        assert refusal.value.remedy
        assert other.server_id not in await hypervisor.guests()

    async def test_one_whose_volume_is_out_of_reach(
        self, hypervisor: LibvirtHypervisor, described: GuestDescription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hypervisor._arriving, "_check_way", lambda: None)  # there is but one libvirt
        away = VolumeConnection(volume_id="v-1", host="127.0.0.1", port=free_port(), export="v-1")
        other = guest(root_disk().model_copy(update={"volume_id": "v-1", "connection": away}))
        with pytest.raises(RescheduleError, match=r"does not reach volume v-1 at 127\.0\.0\.1") as refusal:
            await hypervisor.prepare_incoming(other, described, None, ignore, post_copy=False)
        assert refusal.value.remedy
        assert other.server_id not in await hypervisor.guests()

    async def test_one_that_is_here_already(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        with pytest.raises(RescheduleError, match="on this host already, running"):
            await hypervisor.prepare_incoming(tiny, described, None, ignore, post_copy=False)


class TestConfigDrive:
    """The guest may have it mounted: what has changed since, be it a word of its metadata, comes with the next boot."""

    @pytest.fixture
    async def rebuilt(self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> GuestSpec:
        """A guest that runs, with a password that only its rebuild knew."""
        told = tiny.model_copy(update={"config_drive": True, "admin_password": "hush-hush"})
        await hypervisor.spawn(told, tiny_image, ignore)
        await hypervisor.resume(tiny.server_id)
        return told.model_copy(update={"admin_password": None, "metadata": {"now": "another"}})

    @pytest.fixture
    def there(self, tiny: GuestSpec, next_dir: Path) -> GuestFiles:
        return GuestFiles.of(next_dir / "guests", tiny.server_id)

    async def test_it_comes_as_the_guest_has_it(
        self,
        hypervisor: LibvirtHypervisor,
        next_host: LibvirtHypervisor,
        rebuilt: GuestSpec,
        tiny_image: Path,
        there: GuestFiles,
    ) -> None:
        described = await hypervisor.describe(rebuilt.server_id)
        next_host._arriving.prepare(rebuilt, description=described, base=tiny_image, files=there)
        here = hypervisor._files(rebuilt.server_id).config_drive
        assert there.config_drive.read_bytes() == here.read_bytes()
        assert b"hush-hush" in there.config_drive.read_bytes()

    async def test_a_host_that_does_not_send_it_has_it_made_anew(
        self,
        hypervisor: LibvirtHypervisor,
        next_host: LibvirtHypervisor,
        rebuilt: GuestSpec,
        tiny_image: Path,
        there: GuestFiles,
    ) -> None:
        described = await hypervisor.describe(rebuilt.server_id)
        older = described.model_copy(update={"config_drive": None})
        next_host._arriving.prepare(rebuilt, description=older, base=tiny_image, files=there)
        assert b"another" in there.config_drive.read_bytes()

    async def test_a_guest_without_one_gets_none(
        self,
        next_host: LibvirtHypervisor,
        tiny: GuestSpec,
        tiny_image: Path,
        described: GuestDescription,
        there: GuestFiles,
    ) -> None:
        next_host._arriving.prepare(tiny, description=described, base=tiny_image, files=there)
        assert described.config_drive is None
        assert not there.config_drive.exists()


class TestArrival:
    """What has come is seen; what is refused on its way cannot come any more."""

    @pytest.mark.parametrize("refuse", [True, False])
    async def test_a_guest_that_has_come_stays(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, refuse: bool
    ) -> None:
        await hypervisor.spawn(tiny, tiny_image, ignore)
        assert await hypervisor.arrival(tiny.server_id, refuse=refuse) is Arrival.COME
        domain_of(tiny).resume()
        assert await hypervisor.arrival(tiny.server_id, refuse=refuse) is Arrival.RUNS
        domain_of(tiny).destroy()
        assert await hypervisor.arrival(tiny.server_id, refuse=refuse) is Arrival.OFF
        assert hypervisor._files(tiny.server_id).directory.exists()

    async def test_one_on_its_way_is_ended_if_it_is_refused(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
    ) -> None:
        await hypervisor.spawn(tiny, tiny_image, ignore)
        domain = domain_of(tiny)
        domain.undefine()  # libvirt defines it when it has all of it
        assert await hypervisor.arrival(tiny.server_id) is Arrival.NOTHING
        assert domain.isActive()
        assert await hypervisor.arrival(tiny.server_id, refuse=True) is Arrival.NOTHING
        assert await hypervisor.guests() == []
        assert not hypervisor._files(tiny.server_id).directory.exists()

    async def test_one_that_has_not_begun_finds_nothing_that_was_made_ready(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
    ) -> None:
        await hypervisor.spawn(tiny, tiny_image, ignore)
        domain_of(tiny).destroy()
        domain_of(tiny).undefine()
        assert await hypervisor.arrival(tiny.server_id) is Arrival.NOTHING
        assert hypervisor._files(tiny.server_id).directory.exists()
        assert await hypervisor.arrival(tiny.server_id, refuse=True) is Arrival.NOTHING
        assert not hypervisor._files(tiny.server_id).directory.exists()


class TestWithoutMigration:
    async def test_a_guest_that_runs_is_here(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        assert await hypervisor.end_migration(tiny.server_id) is Whereabouts.HERE
        await hypervisor.take_over(tiny.server_id)
        with pytest.raises(InvalidState, match="no migration"):
            await hypervisor.force_complete(tiny.server_id)

    async def test_one_that_was_left_paused_runs_on(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        domain_of(tiny).suspend()
        assert await hypervisor.end_migration(tiny.server_id) is Whereabouts.HERE
        assert domain_of(tiny).state()[0] == 1

    async def test_one_that_has_come_runs_on_or_boots_anew_as_asked(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        processes = []
        for anew in (False, True):
            domain_of(tiny).suspend()
            await hypervisor.take_over(tiny.server_id, anew=anew)
            assert domain_of(tiny).state()[0] == libvirt.VIR_DOMAIN_RUNNING
            processes.append(domain_of(tiny).ID())
        assert processes == [processes[0], processes[0] + 1]

    async def test_one_that_is_off_or_unknown(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        domain_of(tiny).destroy()
        assert await hypervisor.end_migration(tiny.server_id) is Whereabouts.OFF
        unknown = guest(root_disk()).server_id
        assert await hypervisor.end_migration(unknown) is Whereabouts.GONE
        with pytest.raises(NotFound):
            await hypervisor.take_over(unknown)

    async def test_what_was_handed_over_is_never_started(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, described: GuestDescription
    ) -> None:
        domain_of(tiny).destroy()
        hypervisor._domains.note_handed_over(tiny.server_id)
        assert await hypervisor.end_migration(tiny.server_id) is Whereabouts.HANDED_OVER
        for start in (hypervisor.start, hypervisor.reset):
            with pytest.raises(RescheduleError, match="handed over"):
                await start(tiny.server_id)
        await hypervisor.spawn(tiny, tiny_image, ignore)  # replaces it
        assert domain_of(tiny).isActive()

    async def test_but_for_what_is_kept_after_all(
        self, hypervisor: LibvirtHypervisor, tiny: GuestSpec, described: GuestDescription
    ) -> None:
        domain_of(tiny).destroy()
        hypervisor._domains.note_handed_over(tiny.server_id)
        for _ in range(2):
            await hypervisor.keep(tiny.server_id)
        assert await hypervisor.end_migration(tiny.server_id) is Whereabouts.OFF
        await hypervisor.start(tiny.server_id)
        assert domain_of(tiny).isActive()
        make_ready(domain_of(tiny), MigrationLimits())  # forgets it
        marks = [hypervisor._domains.mark(tiny.server_id)]
        domain_of(tiny).destroy()
        marks.append(hypervisor._domains.mark(tiny.server_id))
        assert [mark and mark.spec for mark in marks] == ["", ""]

    async def test_there_is_nothing_to_keep_of_one_that_is_not_here(self, hypervisor: LibvirtHypervisor) -> None:
        await hypervisor.keep(guest(root_disk()).server_id)
