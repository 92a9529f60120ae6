"""The disks of a guest that was set aside, served by real qemu-nbd processes to whoever has the key."""

import hashlib
import socket
import subprocess
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.offers import PORTS
from drivers.nbd import TLS_ID, psk_credentials, write_key
from hostler.contract.errors import NotFound, RescheduleError
from hostler.contract.guests import DiskKind, DiskOffer, DisksOffer, GuestDisk, GuestSpec
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import MIB, guest, ignore, root_disk
from tests.drivers.observing import names

pytestmark = pytest.mark.real


@pytest.fixture
async def aside(hypervisor: LibvirtHypervisor) -> GuestSpec:
    """A guest with disks of all kinds, set aside."""
    spec = guest(
        root_disk(size_bytes=8 * MIB),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=8 * MIB),
        GuestDisk(kind=DiskKind.SWAP, device="vdc", size_bytes=MIB),
        config_drive=True,
    )
    await hypervisor.spawn(spec, None, ignore)
    await hypervisor.set_aside(spec.server_id)
    return spec


def former(state_dir: Path, spec: GuestSpec, file: str) -> Path:
    return state_dir / "guests" / f"{spec.server_id}.former" / file


def offer_dir(state_dir: Path, spec: GuestSpec) -> Path:
    return state_dir / "offers" / spec.server_id


def servers(state_dir: Path) -> list[psutil.Process]:
    return [
        p for p in psutil.process_iter(["cmdline"]) if str(state_dir / "offers") in " ".join(p.info["cmdline"] or [])
    ]


def modes(directory: Path) -> set[int]:
    """Of a directory and all that is in it."""
    return {path.stat().st_mode & 0o077 for path in [directory, *directory.rglob("*")] if path.name != "checksums.json"}


def source(disk: DiskOffer) -> str:
    """How QEMU reaches it without TLS."""
    return f"driver=nbd,server.type=inet,server.host={disk.host},server.port={disk.port},export={disk.export}"


def read(disk: DiskOffer, tmp_path: Path, key: str | None) -> "subprocess.CompletedProcess[str]":
    """Fetch a whole disk into `tmp_path / "copy"`, with a key or without TLS."""
    command, options = ["qemu-img", "convert", "-O", "raw"], source(disk)
    if key is not None:
        write_key(tmp_path / "tls", key)
        options += f",tls-creds={TLS_ID}"
        command += ["--object", psk_credentials(tmp_path / "tls", "client")]
    return subprocess.run(
        [*command, "--image-opts", options, tmp_path / "copy"], capture_output=True, text=True, timeout=30
    )


def write_to(disk: DiskOffer, tmp_path: Path, key: str) -> str:
    """What qemu-io complains of when it is to write there."""
    write_key(tmp_path / "tls", key)
    credentials = ["--object", psk_credentials(tmp_path / "tls", "client")]
    command = ["qemu-io", *credentials, "-c", "write 0 512", "--image-opts", f"{source(disk)},tls-creds={TLS_ID}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stderr


def accepts(disk: DiskOffer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((disk.host, disk.port)) == 0


async def test_the_disks_but_for_swap_are_served_byte_for_byte(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path, tmp_path: Path
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    assert [disk.file for disk in offer.disks] == ["disk", "disk.eph0"]
    for disk in offer.disks:
        assert disk.port in PORTS
        assert read(disk, tmp_path, offer.key).returncode == 0
        content = former(state_dir, aside, disk.file).read_bytes()
        assert (tmp_path / "copy").read_bytes()[: disk.size_bytes] == content
        assert disk.checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("key", "complaint"), [(None, "TLS negotiation required"), ("ab" * 32, "TLS handshake failed")]
)
async def test_who_does_not_have_the_key_gets_nothing(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, tmp_path: Path, key: str | None, complaint: str
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    assert complaint in read(offer.disks[0], tmp_path, key).stderr


async def test_nobody_can_write_to_what_is_served(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, tmp_path: Path
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    assert "Permission denied" in write_to(offer.disks[0], tmp_path, offer.key)


async def test_no_file_of_the_offer_but_the_checksums_is_anybody_elses_to_read(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    assert modes(offer_dir(state_dir, aside)) == {0}
    assert all(offer.key not in " ".join(process.info["cmdline"]) for process in servers(state_dir))


async def test_offering_again_also_by_the_next_worker_is_the_same_offer_and_reads_nothing_again(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path, host_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    pids = {process.pid for process in servers(state_dir)}
    assert len(pids) == 2
    monkeypatch.setattr("drivers.hypervisor.libvirt.offers.checksum", None)
    reborn = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir, host_id)
    assert await reborn.offer_disks(aside.server_id, False, ignore) == offer
    assert await reborn.formers() == [aside.server_id]
    await reborn.close()
    assert {process.pid for process in servers(state_dir)} == pids


async def test_a_server_that_died_serves_again_at_its_place(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path, tmp_path: Path
) -> None:
    offer = await hypervisor.offer_disks(aside.server_id, False, ignore)
    for process in servers(state_dir):
        process.kill()
        process.wait()
    assert await hypervisor.offer_disks(aside.server_id, False, ignore) == offer
    assert read(offer.disks[0], tmp_path, offer.key).returncode == 0


async def test_a_file_that_was_changed_is_read_again(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path
) -> None:
    first = await hypervisor.offer_disks(aside.server_id, False, ignore)
    change(former(state_dir, aside, "disk.eph0"))
    reports: list[str] = []
    second = await hypervisor.offer_disks(aside.server_id, False, reports.append)
    assert second.disks[0] == first.disks[0]
    assert second.disks[1].checksum != first.disks[1].checksum
    assert reports == ["checksum of disk.eph0: 0 %"]


@pytest.mark.parametrize(
    ("address", "file", "refused"),
    [
        ("127.0.0.1", "disk", True),
        ("::1", "disk.eph0", True),
        ("localhost", "disk", True),
        ("192.0.2.7", "disk", False),
        ("127.0.0.1", "disk.swap", False),  # made anew
        ("127.0.0.1", "disk.config", False),
        ("127.0.0.1", "shared/disk", False),  # seen by other hosts
    ],
)
async def test_a_host_that_others_do_not_reach_says_so_before_a_guest_is_off_for_it(
    tmp_path: Path, host_id: str, address: str, file: str, refused: bool
) -> None:
    storage = tmp_path / "storage"
    settings = LibvirtSettings(shared_disks=storage)
    driver = LibvirtHypervisor(settings, HostSettings(migration_address=address), tmp_path, host_id)
    server_id = str(uuid4())
    home = storage / host_id if file.startswith("shared/") else tmp_path / "guests"
    (home / server_id).mkdir(parents=True)
    (home / server_id / Path(file).name).touch()
    if refused:
        with pytest.raises(RescheduleError, match="no other host can fetch") as refusal:
            await driver.check_leaving(server_id)
        assert (refusal.value.detail.field, refusal.value.detail.value) == ("host.migration_address", address)
        assert refusal.value.remedy
    else:
        await driver.check_leaving(server_id)
    await driver.close()


@pytest.mark.parametrize("call", ["withdraw_offer", "bring_back", "drop_former"])
async def test_what_is_withdrawn_is_not_served_and_its_key_is_forgotten(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path, call: str
) -> None:
    first = await hypervisor.offer_disks(aside.server_id, False, ignore)
    for _ in range(2):
        await getattr(hypervisor, call)(aside.server_id)
        assert servers(state_dir) == []
        assert not any(accepts(disk) for disk in first.disks)
        assert names(state_dir / "offers") == ["servers"]
        assert names(state_dir / "offers" / "servers") == []
    if call == "withdraw_offer":
        assert (await hypervisor.offer_disks(aside.server_id, False, ignore)).key != first.key


async def test_a_server_whose_start_was_not_written_down_is_withdrawn_too(
    hypervisor: LibvirtHypervisor, aside: GuestSpec, state_dir: Path
) -> None:
    await hypervisor.offer_disks(aside.server_id, False, ignore)
    for record in (state_dir / "offers" / "servers").glob("*.json"):
        record.unlink()
    await hypervisor.withdraw_offer(aside.server_id)
    assert servers(state_dir) == []


async def test_two_guests_are_offered_apart(hypervisor: LibvirtHypervisor, state_dir: Path) -> None:
    offers: list[DisksOffer] = []
    for _ in range(2):
        spec = guest(root_disk(size_bytes=8 * MIB))
        await hypervisor.spawn(spec, None, ignore)
        await hypervisor.set_aside(spec.server_id)
        offers.append(await hypervisor.offer_disks(spec.server_id, False, ignore))
    one, other = offers
    assert one.key != other.key
    assert one.disks[0].port != other.disks[0].port
    await hypervisor.withdraw_offer(one.server_id)
    assert not accepts(one.disks[0])
    assert accepts(other.disks[0])


async def test_only_what_was_set_aside_can_be_offered(hypervisor: LibvirtHypervisor) -> None:
    with pytest.raises(NotFound):
        await hypervisor.offer_disks(str(uuid4()), False, ignore)
    await hypervisor.withdraw_offer(str(uuid4()))


def change(file: Path) -> None:
    with file.open("rb+") as opened:
        opened.write(b"changed")
