"""Guests whose disks are on storage that hosts share: who removes what, and what a host refuses to take over.

One machine has one libvirt, which knows a server once: a host that is down is one whose domain is gone.
"""

import pwd
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor, shared
from drivers.hypervisor.libvirt.boot_sector import boot_disk
from drivers.hypervisor.libvirt.connection import Connection
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.shared import SharedDisks
from hostler.contract.errors import RescheduleError, Unavailable
from hostler.contract.guests import DisksOffer, GuestDescription, GuestSpec
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.conftest import a_host, make_state_dir
from tests.drivers.hypervisor.libvirt.guests import domain_of, guest, holds, ignore, root_disk, write

pytestmark = pytest.mark.real
MARKED = (0x5A, 0x80000, 4096)
"""A pattern on the disk, where the boot sector has nothing."""
DEAD, ALIVE = str(uuid4()), str(uuid4())


@pytest.fixture
def storage(state_root: Path) -> Path:
    return make_state_dir(state_root)


@pytest.fixture
def image(tiny: GuestSpec, tiny_image: Path, state_root: Path) -> Path:
    """The tiny image under its UUID, as in the cache of every host."""
    assert tiny.disks[0].image
    file = state_root / tiny.disks[0].image.id
    file.write_bytes(boot_disk())
    return file


@asynccontextmanager
async def on_storage(
    state_dir: Path, host_id: str, storage: Path | None, address: str = "192.0.2.1"
) -> AsyncIterator[LibvirtHypervisor]:
    reachable = HostSettings(migration_address=address)
    async with a_host(state_dir, host_id, host=reachable, storage=storage) as driver:
        await driver.inventory()
        yield driver


@pytest.fixture
async def dead(state_dir: Path, storage: Path) -> AsyncIterator[LibvirtHypervisor]:
    async with on_storage(state_dir, DEAD, storage) as driver:
        yield driver


@pytest.fixture
async def alive(next_dir: Path, storage: Path) -> AsyncIterator[LibvirtHypervisor]:
    async with on_storage(next_dir, ALIVE, storage) as driver:
        yield driver


@pytest.fixture
async def lost(dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path) -> GuestSpec:
    """The guest of a host that is down, as it is to be evacuated, with something on its disk."""
    await dead.spawn(tiny, image, ignore)
    domain_of(tiny).destroy()
    domain_of(tiny).undefine()
    write(disk(storage, DEAD, tiny), *MARKED)
    return tiny.model_copy(update={"taken_over_from": DEAD})


def disk(storage: Path, host_id: str, spec: GuestSpec, suffix: str = "") -> Path:
    return storage / host_id / f"{spec.server_id}{suffix}" / "disk"


class TestOneHost:
    async def test_disks_are_shared_and_qemu_s_and_all_else_is_the_host_s(
        self, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path, state_dir: Path
    ) -> None:
        await dead.spawn(tiny, image, ignore)
        domain_of(tiny).destroy()
        file = disk(storage, DEAD, tiny)
        assert file.stat().st_uid == pwd.getpwnam("libvirt-qemu").pw_uid  # also when the guest is off
        assert sorted(path.name for path in (state_dir / "guests" / tiny.server_id).iterdir()) == [
            "console.log",
            "host",
        ]
        assert await dead.strays() == []
        await dead.destroy(tiny.server_id)
        assert list((storage / DEAD).iterdir()) == list((state_dir / "guests").iterdir()) == []

    async def test_a_guest_that_is_set_aside_takes_them_along_and_comes_back_with_them(
        self, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path
    ) -> None:
        await dead.spawn(tiny, image, ignore)
        domain_of(tiny).destroy()
        write(disk(storage, DEAD, tiny), *MARKED)
        await dead.set_aside(tiny.server_id)
        await dead.spawn(tiny, image, ignore)
        domain_of(tiny).destroy()
        assert not holds(disk(storage, DEAD, tiny), *MARKED)
        await dead.bring_back(tiny.server_id)
        assert holds(disk(storage, DEAD, tiny), *MARKED)
        assert not disk(storage, DEAD, tiny, ".former").parent.exists()
        await dead.set_aside(tiny.server_id)
        await dead.drop_former(tiny.server_id)
        assert list((storage / DEAD).iterdir()) == []

    @pytest.mark.parametrize("call", ["set_aside", "bring_back"])
    async def test_one_whose_worker_died_between_the_two_directories(
        self, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path, call: str
    ) -> None:
        await dead.spawn(tiny, image, ignore)
        domain_of(tiny).destroy()
        write(disk(storage, DEAD, tiny), *MARKED)
        await dead.set_aside(tiny.server_id)
        files = GuestFiles.of(dead._guests_dir, tiny.server_id, storage / DEAD)
        files.former.directory.rename(files.directory)
        await getattr(dead, call)(tiny.server_id)
        await dead.bring_back(tiny.server_id)
        assert holds(disk(storage, DEAD, tiny), *MARKED)

    async def test_storage_that_is_not_mounted(self, state_dir: Path, storage: Path) -> None:
        with pytest.raises(Unavailable, match="cannot be used") as refusal:
            async with on_storage(state_dir, DEAD, storage / "not-there"):
                pass
        assert refusal.value.remedy

    async def test_a_guest_from_before_keeps_its_disks_where_they_are(
        self, state_dir: Path, tiny: GuestSpec, image: Path, storage: Path
    ) -> None:
        host_id = str(uuid4())
        before = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir, host_id)
        await before.spawn(tiny, image, ignore)
        await before.close()
        async with on_storage(state_dir, host_id, storage) as now:
            await now.resume(tiny.server_id)
            described = await now.describe(tiny.server_id)
            assert [(found.shared, described.probe) for found in described.disks] == [(False, None)]


class TestEvacuation:
    async def test_it_has_its_disk_and_each_host_removes_its_own_name(
        self, dead: LibvirtHypervisor, alive: LibvirtHypervisor, lost: GuestSpec, image: Path, storage: Path
    ) -> None:
        former = disk(storage, DEAD, lost)
        for _ in range(2):  # the second after an undo
            await alive.spawn(lost, image, ignore)
            await alive.spawn(lost, image, ignore)
            assert disk(storage, ALIVE, lost).samefile(former)
            assert domain_of(lost).isActive()
            await alive.destroy(lost.server_id)
            assert holds(former, *MARKED)
        await alive.spawn(lost, image, ignore)
        domain_of(lost).destroy()
        await dead.destroy(lost.server_id)  # the domain is another host's, and the files are its own
        assert holds(disk(storage, ALIVE, lost), *MARKED)

    async def test_one_that_is_in_use_is_refused(
        self, alive: LibvirtHypervisor, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path
    ) -> None:
        await dead.spawn(tiny, image, ignore)
        lost = tiny.model_copy(update={"taken_over_from": DEAD})
        shared = alive._shared
        with pytest.raises(RescheduleError, match="lock") as refusal:
            shared.taken_over(lost, image)
        assert "not down" in (refusal.value.remedy or "")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda home, _: home.rename(home.with_name("gone")), "has no directory"),
            (lambda _, directory: (directory / "disk").unlink(), "is not in"),
            (lambda home, directory: (home / f"{directory.name}.former").mkdir(), "of a move or a rebuild"),
        ],
    )
    async def test_what_cannot_be_told_is_refused(
        self,
        alive: LibvirtHypervisor,
        lost: GuestSpec,
        image: Path,
        storage: Path,
        change: Callable[[Path, Path], object],
        reason: str,
    ) -> None:
        change(storage / DEAD, storage / DEAD / lost.server_id)
        with pytest.raises(RescheduleError, match=reason) as refusal:
            await alive.spawn(lost, image, ignore)
        assert refusal.value.remedy
        (storage / "gone").exists() and (storage / "gone").rename(storage / DEAD)

    async def test_another_image_beneath_is_refused(
        self, alive: LibvirtHypervisor, lost: GuestSpec, tiny_image: Path, image: Path, next_dir: Path
    ) -> None:
        with pytest.raises(RescheduleError, match="cannot be had"):
            await alive.spawn(lost, tiny_image, ignore)
        elsewhere = next_dir / image.name
        elsewhere.write_bytes(boot_disk())
        with pytest.raises(RescheduleError, match="on this host"):
            await alive.spawn(lost, elsewhere, ignore)

    async def test_without_disks_on_it_the_guest_is_made_of_its_image(
        self, alive: LibvirtHypervisor, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path
    ) -> None:
        await alive.spawn(tiny.model_copy(update={"taken_over_from": DEAD}), image, ignore)
        assert disk(storage, ALIVE, tiny).exists()


class TestLiveMigration:
    @pytest.fixture
    async def described(self, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path) -> GuestDescription:
        await dead.spawn(tiny, image, ignore)
        await dead.resume(tiny.server_id)
        return await dead.describe(tiny.server_id)

    async def test_the_next_host_sees_the_disk(
        self, alive: LibvirtHypervisor, described: GuestDescription, image: Path, storage: Path, tiny: GuestSpec
    ) -> None:
        assert [found.shared for found in described.disks] == [True]
        assert described.host_id == DEAD
        assert alive._shared.seen(described, image) == {"disk": disk(storage, DEAD, tiny)}

    async def test_what_is_made_ready_is_another_name_and_undone_with_it(
        self,
        alive: LibvirtHypervisor,
        described: GuestDescription,
        image: Path,
        storage: Path,
        tiny: GuestSpec,
        next_dir: Path,
    ) -> None:
        files = GuestFiles.of(next_dir / "guests", tiny.server_id, storage / ALIVE)
        incoming = alive._arriving.prepare(tiny, description=described, base=image, files=files)
        assert (incoming.disks, incoming.shared, incoming.whole) == ([], True, False)
        assert str(disk(storage, ALIVE, tiny)) in incoming.live
        assert 'relabel="no"' in incoming.persistent
        assert disk(storage, ALIVE, tiny).samefile(disk(storage, DEAD, tiny))
        await alive.destroy(tiny.server_id)
        assert domain_of(tiny).isActive()
        assert disk(storage, DEAD, tiny).exists()

    async def test_a_disk_over_an_image_that_is_gone_is_copied(
        self, alive: LibvirtHypervisor, described: GuestDescription, storage: Path, tiny: GuestSpec, next_dir: Path
    ) -> None:
        files = GuestFiles.of(next_dir / "guests", tiny.server_id, storage / ALIVE)
        incoming = alive._arriving.prepare(tiny, description=described, base=None, files=files)
        assert (incoming.disks, incoming.shared, incoming.whole) == (["vda"], False, True)
        assert not disk(storage, ALIVE, tiny).samefile(disk(storage, DEAD, tiny))

    async def test_a_host_that_does_not_see_it(
        self, described: GuestDescription, image: Path, state_root: Path, storage: Path
    ) -> None:
        other = make_state_dir(state_root)
        for root, reason in ((other, "not in"), (None, "has none")):
            with pytest.raises(RescheduleError, match=reason) as refusal:
                SharedDisks(root, ALIVE, Connection(LibvirtSettings().uri)).seen(described, image)
            assert refusal.value.detail.field == "host.libvirt.shared_disks"
            assert refusal.value.remedy

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"probe": "probe.another"}, "not in"),
            ({"probe": "probe.x/../disk"}, "not in"),
            ({"host_id": ".."}, "not in"),
        ],
    )
    async def test_a_probe_that_is_not_there(
        self, alive: LibvirtHypervisor, described: GuestDescription, image: Path, changes: dict[str, str], reason: str
    ) -> None:
        with pytest.raises(RescheduleError, match=reason):
            alive._shared.seen(described.model_copy(update=changes), image)

    async def test_a_disk_in_a_page_cache_or_over_another_image(
        self, alive: LibvirtHypervisor, described: GuestDescription, image: Path, tiny_image: Path
    ) -> None:
        cached = described.model_copy(update={"live": described.live.replace("cache='none'", "cache='writeback'")})
        with pytest.raises(RescheduleError, match="page cache"):
            alive._shared.seen(cached, image)
        with pytest.raises(RescheduleError, match="on this host"):
            alive._shared.seen(described, tiny_image)

    async def test_qemu_with_another_number(
        self, alive: LibvirtHypervisor, described: GuestDescription, image: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared, "qemu_user", lambda _connection: (1, 1))
        with pytest.raises(RescheduleError, match="QEMU runs as 1:1"):
            alive._shared.seen(described, image)


class TestColdMigration:
    @pytest.fixture
    async def dead(self, state_dir: Path, storage: Path) -> AsyncIterator[LibvirtHypervisor]:
        """The former host, which serves disks at this machine's own address."""
        async with on_storage(state_dir, DEAD, storage, "127.0.0.1") as driver:
            yield driver

    @pytest.fixture
    async def moving(self, dead: LibvirtHypervisor, tiny: GuestSpec, image: Path, storage: Path) -> GuestSpec:
        """A guest that was set aside, as it is to be on its next host."""
        await dead.spawn(tiny, image, ignore)
        await dead.stop(tiny.server_id, timedelta(0), ignore)
        write(disk(storage, DEAD, tiny), *MARKED)
        await dead.set_aside(tiny.server_id)
        return tiny.model_copy(update={"received": True})

    async def test_its_disk_is_copied_on_the_storage_and_the_former_one_stays_as_it_was(
        self, dead: LibvirtHypervisor, alive: LibvirtHypervisor, moving: GuestSpec, image: Path, storage: Path
    ) -> None:
        said = list[str]()
        await alive.receive_disks(await dead.offer_disks(moving.server_id, False, ignore), said.append)
        await dead.withdraw_offer(moving.server_id)
        await alive.spawn(moving, image, ignore)

        assert any("on the shared storage" in words for words in said)
        assert not any("receiving" in words for words in said)
        there, former = disk(storage, ALIVE, moving), disk(storage, DEAD, moving, ".former")
        assert there.stat().st_ino != former.stat().st_ino
        await alive.stop(moving.server_id, timedelta(0), ignore)
        assert holds(there, *MARKED)
        assert holds(former, *MARKED)

    async def test_a_host_that_does_not_see_it_fetches_it(
        self, dead: LibvirtHypervisor, next_dir: Path, moving: GuestSpec, storage: Path
    ) -> None:
        said = list[str]()
        offer = await dead.offer_disks(moving.server_id, False, ignore)
        (disk(storage, DEAD, moving, ".former").parent / str(offer.probe)).unlink()
        async with on_storage(next_dir, ALIVE, storage) as other:
            await other.receive_disks(offer, said.append)
        await dead.withdraw_offer(moving.server_id)
        assert any("receiving disk" in words for words in said)

    @pytest.mark.parametrize("probe", [None, "probe.", "probe.../../disk", "host"])
    async def test_a_probe_that_is_none_is_not_looked_for(
        self, alive: LibvirtHypervisor, moving: GuestSpec, probe: str | None
    ) -> None:
        offer = DisksOffer(server_id=moving.server_id, disks=[], key="ab" * 32, host_id=DEAD, probe=probe)
        assert alive._shared.offered(offer) is None


def test_a_guest_without_shared_disks_is_seen_by_all() -> None:
    described = GuestDescription(server_id=guest(root_disk()).server_id, live="", persistent="", virt_type="qemu")
    assert SharedDisks(None, ALIVE, Connection("test:///default")).seen(described, None) == {}
