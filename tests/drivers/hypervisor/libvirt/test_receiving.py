"""Disks that move from one host to the next, in pieces, over real NBD with TLS."""

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from drivers.blocking import BlockingCalls
from drivers.converting import convert
from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt import LibvirtHypervisor, receiving
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.offers import Offers
from drivers.hypervisor.libvirt.receiving import Receiving
from hostler.contract.errors import InvalidRequest, RescheduleError, Unavailable
from hostler.contract.guests import DisksOffer
from hostler.contract.states import PowerState
from tests.conftest import free_port
from tests.drivers.hypervisor.libvirt.guests import MIB, ignore
from tests.drivers.observing import names

LOOPBACK = "127.0.0.1"
HOST = str(uuid4())
SERVER = str(uuid4())
PORTS = range(21810, 21830)


@pytest.fixture
async def blocking() -> AsyncIterator[BlockingCalls]:
    calls = BlockingCalls("test", 4)
    yield calls
    await calls.close()


@pytest.fixture
def former(tmp_path: Path) -> GuestFiles:
    """Files that were set aside: one of an odd size, and one that is all holes but for its middle."""
    directory = tmp_path / "former"
    directory.mkdir()
    (directory / "disk").write_bytes(os.urandom(5 * MIB + 333))
    with (directory / "disk.eph0").open("wb") as file:
        file.seek(3 * MIB)
        file.write(b"in the middle")
        file.truncate(6 * MIB)
    return GuestFiles(directory)


@pytest.fixture
async def offers(tmp_path: Path, blocking: BlockingCalls) -> AsyncIterator[Offers]:
    offers = Offers(tmp_path / "offers", LOOPBACK, blocking, PORTS)
    yield offers
    await offers.withdraw(SERVER)


@pytest.fixture
async def offer(offers: Offers, former: GuestFiles) -> DisksOffer:
    return await offers.make(former, SERVER, ignore)


@pytest.fixture
def incoming(tmp_path: Path) -> GuestFiles:
    return GuestFiles(tmp_path / "guests" / f"{SERVER}.incoming")


@pytest.fixture
def receiver(blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch) -> Receiving:
    """One that fetches a MiB at a time."""
    monkeypatch.setattr(receiving, "PIECE_BYTES", MIB)
    return Receiving(HOST, blocking)


@pytest.fixture
def small_disk(incoming: GuestFiles) -> Iterator[None]:
    """Room for 4 MiB."""
    incoming.directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", incoming.directory], check=True)
    yield
    subprocess.run(["umount", "--lazy", incoming.directory], check=True)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pieces that are fetched: where each begins, and of what."""
    fetched: list[str] = []

    async def counted(*arguments: str, **options: object) -> str:
        export = next(argument for argument in arguments if "export=" in argument)
        fetched.append(f"{export.split('export=')[1].split(',')[0][37:]}@{export.split('offset=')[1].split(',')[0]}")
        return await convert(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(receiving, "convert", counted)
    return fetched


def kill_servers(tmp_path: Path) -> None:
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "qemu-nbd" and str(tmp_path) in " ".join(process.info["cmdline"] or []):
            process.kill()
            process.wait()


def same(former: GuestFiles, incoming: GuestFiles, file: str) -> bool:
    return (former.directory / file).read_bytes() == (incoming.directory / file).read_bytes()


def status(files: GuestFiles, file: str) -> os.stat_result:
    return (files.directory / file).stat()


async def cut_after(receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, said: str) -> None:
    """Receive until that is reported, then be cancelled."""
    heard = asyncio.Event()
    task = asyncio.create_task(receiver.receive(incoming, offer, lambda text: heard.set() if said in text else None))
    async with asyncio.timeout(30):
        await heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_offered_arrives_byte_for_byte_private_and_sparse(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offer: DisksOffer
) -> None:
    reports: list[str] = []
    await receiver.receive(incoming, offer, reports.append)
    assert same(former, incoming, "disk")
    assert same(former, incoming, "disk.eph0")
    assert {status(incoming, file).st_mode & 0o777 for file in ("disk", "disk.eph0")} == {0o600}
    assert status(incoming, ".").st_mode & 0o777 == 0o700
    assert status(incoming, "disk.eph0").st_blocks * 512 < MIB
    assert incoming.host_id() == HOST
    assert "receiving disk: 0 % of 5243213 bytes" in reports
    assert not [name for name in names(incoming.directory) if "tls" in name or "part" in name]


async def test_receiving_again_fetches_nothing(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, pieces: list[str], tmp_path: Path
) -> None:
    await receiver.receive(incoming, offer, ignore)
    assert pieces == [f"disk@{n * MIB}" for n in range(6)] + [f"disk.eph0@{n * MIB}" for n in range(6)]
    kill_servers(tmp_path)
    await receiver.receive(incoming, offer, ignore)
    assert len(pieces) == 12


async def test_a_transfer_whose_server_dies_is_worth_a_retry_and_goes_on_where_it_was(
    receiver: Receiving,
    offers: Offers,
    former: GuestFiles,
    incoming: GuestFiles,
    offer: DisksOffer,
    pieces: list[str],
    tmp_path: Path,
) -> None:
    with pytest.raises(Unavailable, match=r"cannot fetch disk.* from 127\.0\.0\.1"):
        await receiver.receive(
            incoming, offer, lambda _: kill_servers(tmp_path) if f"disk@{3 * MIB}" in pieces else None
        )
    before = len(pieces)
    assert before < 22
    with pytest.raises(Unavailable):
        await receiver.receive(incoming, offer, ignore)
    assert await offers.make(former, SERVER, ignore) == offer
    again = len(pieces)
    await receiver.receive(incoming, offer, ignore)
    assert pieces[again] == pieces[before - 1]
    assert same(former, incoming, "disk")
    assert same(former, incoming, "disk.eph0")


async def test_a_cancelled_transfer_goes_on_by_the_next_worker(
    receiver: Receiving,
    former: GuestFiles,
    incoming: GuestFiles,
    offer: DisksOffer,
    pieces: list[str],
    blocking: BlockingCalls,
) -> None:
    await cut_after(receiver, incoming, offer, "receiving disk.eph0")
    assert not [name for name in names(incoming.directory) if "tls" in name]
    begun = len(pieces)
    await Receiving(HOST, blocking).receive(incoming, offer, ignore)
    assert all(piece.startswith("disk.eph0@") for piece in pieces[begun:])
    assert same(former, incoming, "disk.eph0")


async def test_what_a_power_cut_left_behind_the_last_piece_is_written_over(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offer: DisksOffer
) -> None:
    await cut_after(receiver, incoming, offer, "receiving disk.eph0")
    damage(incoming, "disk.eph0.part")
    await receiver.receive(incoming, offer, ignore)
    assert same(former, incoming, "disk.eph0")


async def test_another_content_is_fetched_from_the_beginning(
    receiver: Receiving, offers: Offers, former: GuestFiles, incoming: GuestFiles, offer: DisksOffer, pieces: list[str]
) -> None:
    await receiver.receive(incoming, offer, ignore)
    await offers.withdraw(SERVER)
    damage(former, "disk")
    del pieces[:]
    await receiver.receive(incoming, await offers.make(former, SERVER, ignore), ignore)
    assert pieces == [f"disk@{n * MIB}" for n in range(6)]
    assert same(former, incoming, "disk")


async def test_what_was_changed_after_it_was_offered_is_noticed_and_not_kept(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offer: DisksOffer
) -> None:
    damage(former, "disk")
    with pytest.raises(RescheduleError, match="arrived with SHA-256"):
        await receiver.receive(incoming, offer, ignore)
    assert names(incoming.directory) == ["host"]


async def test_what_is_seen_on_shared_storage_is_copied_there(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offer: DisksOffer, tmp_path: Path
) -> None:
    kill_servers(tmp_path)
    reports: list[str] = []
    await receiver.receive(incoming, offer, reports.append, former.directory)
    assert same(former, incoming, "disk")
    assert same(former, incoming, "disk.eph0")
    assert status(incoming, "disk").st_ino != status(former, "disk").st_ino
    assert "copying, on the shared storage, disk: 0 % of 5243213 bytes" in reports


async def test_storage_that_goes_away_meanwhile_is_worth_a_retry(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=r"cannot fetch disk from .*elsewhere/disk: .*No such file") as refusal:
        await receiver.receive(incoming, offer, ignore, tmp_path / "elsewhere")
    assert "shared storage is mounted" in str(refusal.value.remedy)


async def test_a_key_that_is_not_the_offers_gets_nothing(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer
) -> None:
    with pytest.raises(Unavailable, match="TLS handshake failed"):
        await receiver.receive(incoming, offer.model_copy(update={"key": "ab" * 32}), ignore)


async def test_a_host_that_says_nothing_is_not_waited_for_for_ever(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SILENCE", timedelta(seconds=0.3))
    port = free_port()
    silent = await asyncio.start_server(lambda _reader, _writer: None, LOOPBACK, port)
    disks = [disk.model_copy(update={"port": port}) for disk in offer.disks]
    with pytest.raises(Unavailable, match="no progress within"):
        await receiver.receive(incoming, offer.model_copy(update={"disks": disks}), ignore)
    silent.close()


@pytest.mark.usefixtures("small_disk")
async def test_where_there_is_no_room_nothing_is_fetched(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, pieces: list[str]
) -> None:
    with pytest.raises(RescheduleError, match="no room in"):
        await receiver.receive(incoming, offer, ignore)
    assert pieces == []


@pytest.mark.usefixtures("small_disk")
async def test_holes_need_no_room(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offers: Offers
) -> None:
    os.truncate(former.directory / "disk", MIB)
    os.truncate(former.directory / "disk", 16 * MIB)
    await receiver.receive(incoming, await offers.make(former, SERVER, ignore), ignore)
    assert same(former, incoming, "disk")


@pytest.mark.parametrize("stored", [True, False], ids=["as it is now", "as hosts of the first release say it"])
@pytest.mark.usefixtures("small_disk")
async def test_what_has_arrived_needs_no_more_room(
    receiver: Receiving, former: GuestFiles, incoming: GuestFiles, offers: Offers, stored: bool
) -> None:
    os.truncate(former.directory / "disk", 3 * MIB)
    offer = await offers.make(former, SERVER, ignore)
    if not stored:
        offer = offer.model_copy(update={"disks": [d.model_copy(update={"stored_bytes": None}) for d in offer.disks]})
    await receiver.receive(incoming, offer, ignore)
    (incoming.directory / "complete").unlink()
    await receiver.receive(incoming, offer, ignore)
    assert same(former, incoming, "disk")


@pytest.mark.usefixtures("small_disk")
async def test_a_disk_that_fills_up_is_a_reason_to_go_elsewhere(
    receiver: Receiving, incoming: GuestFiles, offers: Offers, former: GuestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await offers.make(former, SERVER, ignore)
    monkeypatch.setattr(receiving, "_check_room", lambda *_: None)
    with pytest.raises(RescheduleError, match="No space left"):
        await receiver.receive(incoming, offer, ignore)


@pytest.mark.parametrize(
    "file", ["../disk", "disk.swap", "host", "disk.part/x", "console.log", "disk.eph0,readonly=on"]
)
async def test_a_name_that_is_no_disks_is_refused(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, file: str
) -> None:
    disks = [offer.disks[0].model_copy(update={"file": file})]
    with pytest.raises(InvalidRequest):
        await receiver.receive(incoming, offer.model_copy(update={"disks": disks}), ignore)


@pytest.mark.parametrize("key", ["", "ab" * 31, "hostler\nother:" + "ab" * 25, "AB" * 32 + "\n"])
async def test_a_key_that_is_none_is_refused(
    receiver: Receiving, incoming: GuestFiles, offer: DisksOffer, key: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await receiver.receive(incoming, offer.model_copy(update={"key": key}), ignore)
    assert key.strip() == "" or key not in str(caught.value.detail)


@pytest.mark.real
async def test_received_disks_are_held_until_the_server_is_destroyed(
    hypervisor: LibvirtHypervisor, offer: DisksOffer, host_id: str, state_dir: Path
) -> None:
    await hypervisor.receive_disks(offer, ignore)
    assert await hypervisor.held() == [HeldGuest(SERVER, PowerState.NOSTATE, host_id)]
    assert await hypervisor.strays() == []
    await hypervisor.destroy(SERVER)
    assert await hypervisor.held() == []
    assert names(state_dir / "guests") == []


def damage(files: GuestFiles, file: str) -> None:
    with (files.directory / file).open("rb+") as opened:
        opened.seek(-MIB, os.SEEK_END)
        opened.write(b"damaged")


def test_checksums_are_those_that_everybody_else_computes(former: GuestFiles, offer: DisksOffer) -> None:
    content = (former.directory / "disk").read_bytes()
    assert offer.disks[0].checksum == hashlib.sha256(content).hexdigest()
