"""Guests that are set aside, and brought back; also when the worker dies in the middle of it."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt import LibvirtHypervisor
from hostler.contract.errors import Conflict, NotFound, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import MIB, domain_of, greeted, holds, ignore, write
from tests.drivers.observing import names

pytestmark = pytest.mark.real

MARKED = (0x5A, 0x80000, 4096)
"""A pattern on the disk, where the boot sector has nothing."""


def place(state_dir: Path, spec: GuestSpec, suffix: str = "") -> Path:
    return state_dir / "guests" / f"{spec.server_id}{suffix}"


def is_defined(spec: GuestSpec) -> bool:
    try:
        return domain_of(spec) is not None
    except libvirt.libvirtError:
        return False


@pytest.fixture
async def running(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path) -> GuestSpec:
    """A guest that runs, with something on its disk that is not in its image."""
    await hypervisor.spawn(tiny, tiny_image, ignore)
    domain_of(tiny).destroy()
    write(place(state_dir, tiny) / "disk", *MARKED)
    await hypervisor.start(tiny.server_id)
    return tiny


class Died(Exception):
    """The worker, at this very place."""


def die(*_: object, **__: object) -> None:
    raise Died


async def test_a_guest_that_is_set_aside_is_off_without_a_domain_and_keeps_its_files(
    hypervisor: LibvirtHypervisor, running: GuestSpec, state_dir: Path
) -> None:
    for _ in range(2):
        await hypervisor.set_aside(running.server_id)
        assert not is_defined(running)
        assert names(state_dir / "guests") == [f"{running.server_id}.former"]
        assert await hypervisor.formers() == [running.server_id]
        assert await hypervisor.held() == []
        assert await hypervisor.power_state(running.server_id) is PowerState.NOSTATE
        assert await hypervisor.strays() == []
    assert (place(state_dir, running, ".former") / "domain.xml").stat().st_mode & 0o777 == 0o600


async def test_it_comes_back_as_it_was_but_off_whatever_was_in_its_place(
    hypervisor: LibvirtHypervisor, running: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.set_aside(running.server_id)
    bigger = running.model_copy(update={"ram_mib": 48})
    await hypervisor.spawn(bigger, tiny_image, ignore)
    place(state_dir, running, ".incoming").mkdir()
    assert domain_of(running).maxMemory() == 48 * 1024
    for _ in range(2):
        await hypervisor.bring_back(running.server_id)
        assert await hypervisor.power_state(running.server_id) is PowerState.SHUTDOWN
        assert domain_of(running).maxMemory() == 32 * 1024
        assert names(state_dir / "guests") == [running.server_id]
        assert await hypervisor.formers() == []
    assert names(place(state_dir, running)) == ["console.log", "disk", "host"]
    assert holds(place(state_dir, running) / "disk", *MARKED)
    await hypervisor.start(running.server_id)
    await greeted(hypervisor, running)


async def test_bringing_back_nobody_changes_nothing(hypervisor: LibvirtHypervisor, running: GuestSpec) -> None:
    await hypervisor.bring_back(running.server_id)
    assert await hypervisor.power_state(running.server_id) is PowerState.RUNNING
    await hypervisor.bring_back(str(uuid4()))


async def test_a_guest_that_is_dropped_leaves_no_trace_and_the_one_in_its_place_stays(
    hypervisor: LibvirtHypervisor, running: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.set_aside(running.server_id)
    await hypervisor.spawn(running, tiny_image, ignore)
    for _ in range(2):
        await hypervisor.drop_former(running.server_id)
        assert names(state_dir / "guests") == [running.server_id]
        assert await hypervisor.formers() == []
    assert await hypervisor.power_state(running.server_id) is PowerState.PAUSED


async def test_destroying_a_guest_spares_the_one_that_was_set_aside(
    hypervisor: LibvirtHypervisor, running: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.set_aside(running.server_id)
    await hypervisor.spawn(running, tiny_image, ignore)
    await hypervisor.destroy(running.server_id)
    assert names(state_dir / "guests") == [f"{running.server_id}.former"]


async def test_who_has_no_guest_cannot_be_set_aside(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, state_dir: Path
) -> None:
    with pytest.raises(NotFound):
        await hypervisor.set_aside(tiny.server_id)
    place(state_dir, tiny).mkdir(parents=True)  # half made
    with pytest.raises(NotFound):
        await hypervisor.set_aside(tiny.server_id)


async def test_only_one_guest_of_a_server_is_set_aside(
    hypervisor: LibvirtHypervisor, running: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.set_aside(running.server_id)
    await hypervisor.spawn(running, tiny_image, ignore)
    with pytest.raises(Conflict, match="another is in its place"):
        await hypervisor.set_aside(running.server_id)


@pytest.mark.parametrize("step", ["domains.Domains.remove", "former.put_in_place"])
@pytest.mark.parametrize("then", ["set_aside", "bring_back"])
async def test_a_set_aside_that_was_cut_short_is_finished_or_undone(
    hypervisor: LibvirtHypervisor,
    running: GuestSpec,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    then: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"drivers.hypervisor.libvirt.{step}", die)
        with pytest.raises(Died):
            await hypervisor.set_aside(running.server_id)
    await getattr(hypervisor, then)(running.server_id)
    expected = f"{running.server_id}.former" if then == "set_aside" else running.server_id
    assert names(state_dir / "guests") == [expected]
    assert is_defined(running) is (then == "bring_back")


async def test_a_set_aside_whose_domain_was_gone_already_is_finished(
    hypervisor: LibvirtHypervisor, running: GuestSpec, state_dir: Path
) -> None:
    await cut_short_before_the_rename(hypervisor, running, state_dir)
    await hypervisor.set_aside(running.server_id)
    assert names(state_dir / "guests") == [f"{running.server_id}.former"]
    await hypervisor.bring_back(running.server_id)
    assert await hypervisor.power_state(running.server_id) is PowerState.SHUTDOWN


async def test_a_bring_back_that_was_cut_short_before_the_domain_was_defined_is_finished(
    hypervisor: LibvirtHypervisor, running: GuestSpec, state_dir: Path
) -> None:
    await cut_short_before_the_rename(hypervisor, running, state_dir)
    await hypervisor.bring_back(running.server_id)
    assert await hypervisor.power_state(running.server_id) is PowerState.SHUTDOWN
    assert not (place(state_dir, running) / "domain.xml").exists()
    assert holds(place(state_dir, running) / "disk", *MARKED)


async def test_a_guest_that_is_set_aside_is_no_news_and_one_that_is_back_is_none(
    hypervisor: LibvirtHypervisor, running: GuestSpec
) -> None:
    changes = hypervisor.power_changes()
    assert await anext(changes) == {running.server_id}
    await hypervisor.set_aside(running.server_id)
    await hypervisor.bring_back(running.server_id)
    await hypervisor.start(running.server_id)
    domain_of(running).destroy()
    assert await anext(changes) == {running.server_id}, "this one nobody asked for"
    assert await hypervisor.power_state(running.server_id) is PowerState.SHUTDOWN
    await changes.aclose()


async def test_what_another_host_set_aside_is_held_and_left_alone(
    hypervisor: LibvirtHypervisor, running: GuestSpec, state_dir: Path, host_id: str
) -> None:
    await hypervisor.set_aside(running.server_id)
    other = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir, str(uuid4()))
    assert await other.formers() == []
    assert await other.held() == [HeldGuest(running.server_id, PowerState.NOSTATE, host_id)]
    await other.bring_back(running.server_id)
    await other.drop_former(running.server_id)
    with pytest.raises(RescheduleError, match=host_id):
        await other.set_aside(running.server_id)
    await other.close()
    assert names(state_dir / "guests") == [f"{running.server_id}.former"]


async def test_ephemeral_disks_are_preserved_and_grown_and_the_former_guest_keeps_them_too(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    def with_ephemeral(size: int) -> GuestSpec:
        disk = GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=size)
        return tiny.model_copy(update={"disks": [*tiny.disks, disk]})

    await hypervisor.spawn(with_ephemeral(8 * MIB), tiny_image, ignore)
    await hypervisor.stop(tiny.server_id, timedelta(0), ignore)
    root, ephemeral = place(state_dir, tiny) / "disk", place(state_dir, tiny) / "disk.eph0"
    write(root, *MARKED)
    with ephemeral.open("rb+") as file:
        file.write(b"kept")
    await hypervisor.set_aside(tiny.server_id)

    await hypervisor.spawn(with_ephemeral(9 * MIB).model_copy(update={"preserve_ephemeral": True}), tiny_image, ignore)
    assert (ephemeral.read_bytes()[:4], ephemeral.stat().st_size) == (b"kept", 9 * MIB)
    await hypervisor.stop(tiny.server_id, timedelta(0), ignore)
    assert not holds(root, *MARKED), "the root disk is new"
    await hypervisor.destroy(tiny.server_id)
    await hypervisor.bring_back(tiny.server_id)
    assert ephemeral.read_bytes()[:4] == b"kept"
    assert holds(root, *MARKED)


async def cut_short_before_the_rename(hypervisor: LibvirtHypervisor, spec: GuestSpec, state_dir: Path) -> None:
    """The XML is kept and the domain gone, the directory in its place: as after most of either call."""
    await hypervisor.set_aside(spec.server_id)
    place(state_dir, spec, ".former").rename(place(state_dir, spec))
