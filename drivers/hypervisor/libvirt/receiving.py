"""Fetches the disks that another host offers, in pieces: a call that was ended goes on with the next one.

From shared storage they are copied there, and nothing goes from host to host. They arrive in the server's incoming
directory. For each file there are `<file>.part` while it is not whole, and `<file>.progress`, which says of which
content it is and how much has arrived. `complete` says that all have.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from drivers.blocking import BlockingCalls
from drivers.converting import convert
from drivers.durable import put_in_place, write_text
from drivers.hypervisor.base import Report
from drivers.hypervisor.libvirt.checksums import checksum
from drivers.hypervisor.libvirt.files import EPHEMERAL_DISK, GuestFiles, movable_disk
from drivers.hypervisor.reporting import reporting
from drivers.nbd import TLS_ID, option, psk_credentials, write_key
from drivers.sparse import stored_bytes
from hostler.contract.errors import HostlerError, InvalidRequest, RescheduleError, Unavailable
from hostler.contract.guests import DiskOffer, DisksOffer

PIECE_BYTES = 128 << 20
SECTOR = 512
SILENCE = timedelta(seconds=60)
"""A host from which not one percent of a piece has come for so long is taken for dead."""
PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600
COMPLETE = "complete"
KEY = re.compile(r"[0-9a-f]{64}")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What qemu-img says when the fault is this host's; all else may be the other's, or the network's.
OURS = re.compile(r"No space left|quota exceeded|error while writing|File too large|Read-only file system")
OPTIONS = re.compile(r"Could not open 'driver=.*?': ")


class Arrived(NamedTuple):
    """How many bytes have arrived, of the file with this checksum."""

    checksum: str
    offset: int


class Receiving:
    """Receives disks for one host."""

    def __init__(self, host_id: str, blocking: BlockingCalls) -> None:
        self._host_id = host_id
        self._blocking = blocking

    async def receive(self, incoming: GuestFiles, offer: DisksOffer, report: Report, seen: Path | None = None) -> None:
        """See `HypervisorDriver.receive_disks`. One call at a time for a server.

        `seen` is the directory in which this host sees what is offered, if it does.
        """
        _check(offer)
        try:
            await self._blocking.run(self._prepare, incoming, offer)
            if await self._blocking.run(_is_complete, incoming, offer):
                return
            keys = await self._blocking.run(_lay_out, incoming, offer.key)
            try:
                for disk in offer.disks:
                    source = _served(disk, keys) if seen is None else _on_storage(seen / disk.file)
                    await self._fetch(incoming.directory, disk, source, report)
            finally:
                await self._blocking.run(shutil.rmtree, keys)
            await self._blocking.run(write_text, incoming.directory / COMPLETE, "")
        except OSError as error:
            if error.errno in NO_ROOM:
                raise RescheduleError(f"no room for the disks: {error}", remedy="free space on the host") from error
            raise

    async def _fetch(self, directory: Path, disk: DiskOffer, source: "_Source", report: Report) -> None:
        final, part = directory / disk.file, _part(directory, disk)
        if await self._blocking.run(final.exists):
            return  # of this checksum: the others have been removed
        done = await self._blocking.run(_begin, directory, disk)
        said = ""

        def tell(count: int) -> None:
            nonlocal said
            now = f"{source.how} {disk.file}: {100 * count // max(disk.size_bytes, 1)} % of {disk.size_bytes} bytes"
            if said != now:
                said = now
                report(said)

        tell(done)
        async with reporting(report, lambda: said):
            while done < disk.size_bytes:
                # The last piece ends at a sector's end: NBD fills the last one up with zeros.
                size = min(PIECE_BYTES, _rounded(disk.size_bytes) - done)
                began = done
                complaint = await convert(
                    *_piece(source, part, done, size),
                    progress=lambda percent: tell(began + size * percent // 100),  # noqa: B023, it ends with the call
                    silence=SILENCE,
                )
                if complaint:
                    raise _failure(disk, source, complaint)
                done += size
                await self._blocking.run(_note, directory, disk, done)
            said = f"comparing {disk.file}"
            await self._blocking.run(os.truncate, part, disk.size_bytes)
            await self._compare(directory, disk)

    async def _compare(self, directory: Path, disk: DiskOffer) -> None:
        part = _part(directory, disk)
        found = await checksum(part, self._blocking, lambda _: None)
        if found != disk.checksum:
            await self._blocking.run(_forget, directory, disk)
            raise RescheduleError(
                f"{disk.file} arrived with SHA-256 {found} instead of {disk.checksum}",
                remedy="the file was changed after it was offered, or a disk is failing: look at both hosts' logs",
            )
        await self._blocking.run(_sync, part)
        await self._blocking.run(put_in_place, part, directory / disk.file)

    def _prepare(self, incoming: GuestFiles, offer: DisksOffer) -> None:
        """Make the directory, and remove from it what is of another offer."""
        directory = incoming.directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(exist_ok=True)
        directory.chmod(PRIVATE_DIRECTORY)
        if incoming.host_id() != self._host_id:
            write_text(incoming.host, f"{self._host_id}\n")
        for disk in offer.disks:
            if _arrived(directory, disk).checksum != disk.checksum:
                _forget(directory, disk)
        names = [disk.file for disk in offer.disks]
        known = {f"{name}{suffix}" for name in names for suffix in ("", ".part", ".progress")}
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)  # the key of a call whose worker died
            elif path.name not in {*known, incoming.host.name, COMPLETE}:
                path.unlink()
        _check_room(directory, offer)


def is_whole(incoming: GuestFiles) -> bool:
    """Whether all that was offered has arrived."""
    return (incoming.directory / COMPLETE).exists()


def _is_complete(incoming: GuestFiles, offer: DisksOffer) -> bool:
    return is_whole(incoming) and all((incoming.directory / disk.file).exists() for disk in offer.disks)


def _check(offer: DisksOffer) -> None:
    for disk in offer.disks:
        if not movable_disk(disk.file):
            raise InvalidRequest("that is no name of a disk", field="file", value=disk.file)
    if not KEY.fullmatch(offer.key):
        raise InvalidRequest("a key is 64 hexadecimal digits", field="key")


def _check_room(directory: Path, offer: DisksOffer) -> None:
    """Refuse what cannot fit."""
    missing = sum(_missing(directory, disk) for disk in offer.disks)
    free = shutil.disk_usage(directory).free
    if missing > free:
        raise RescheduleError(
            f"no room in {directory} for {missing} bytes of disks: {free} are free", remedy="free space on the host"
        )


def _missing(directory: Path, disk: DiskOffer) -> int:
    """How many bytes of room the rest of the file takes: its holes take none."""
    if disk.stored_bytes is not None:
        files = (_part(directory, disk), directory / disk.file)
        return max(0, disk.stored_bytes - sum(stored_bytes(file) for file in files if file.exists()))
    if disk.file.startswith(EPHEMERAL_DISK):
        return 0  # it is sparse, and its host does not say what it takes
    return disk.size_bytes - min(_arrived(directory, disk).offset, disk.size_bytes)


def _lay_out(incoming: GuestFiles, key: str) -> Path:
    """A private directory with the key, as QEMU wants it."""
    keys = Path(tempfile.mkdtemp(prefix="tls-", dir=incoming.directory))
    write_key(keys, key)
    return keys


def _begin(directory: Path, disk: DiskOffer) -> int:
    """Make the partial file, with zeros after what is known to have arrived; how much that is."""
    part = _part(directory, disk)
    offset = _arrived(directory, disk).offset if part.exists() else 0
    (directory / COMPLETE).unlink(missing_ok=True)
    part.touch(PRIVATE_FILE)
    os.truncate(part, offset)
    os.truncate(part, _rounded(disk.size_bytes))
    _write_progress(directory, disk, offset)
    return offset


class _Source(NamedTuple):
    """Where a disk is copied from: how one says that, what qemu-img opens, and with which options of its own."""

    how: str
    place: str
    remedy: str
    image: str
    options: tuple[str, ...] = ()


def _served(disk: DiskOffer, keys: Path) -> _Source:
    server = f"file.server.type=inet,file.server.host={option(disk.host)},file.server.port={disk.port}"
    return _Source(
        how="receiving",
        place=f"{disk.host} port {disk.port}",
        remedy="see that the host which offers it runs, and that its host.migration_address can be reached from here",
        image=f"file.driver=nbd,{server},file.export={option(disk.export)},file.tls-creds={TLS_ID}",
        options=("--object", psk_credentials(keys, "client")),
    )


def _on_storage(file: Path) -> _Source:
    return _Source(
        how="copying, on the shared storage,",
        place=str(file),
        remedy="see that the shared storage is mounted here, and that root may read there (NFS: no_root_squash)",
        # Unlocked: its host serves it at the same time.
        image=f"file.driver=file,file.filename={option(str(file))},file.locking=off",
    )


def _piece(source: _Source, part: Path, offset: int, size: int) -> list[str]:
    """What makes qemu-img copy these bytes. It leaves holes where there are only zeros."""
    # Unlocked, since one of a worker that died may still be writing, the same bytes.
    target = f"file.driver=file,file.filename={option(str(part))},file.locking=off"
    piece = f"driver=raw,offset={offset},size={size}"
    return [
        *("-n", "--target-is-zero", *source.options),
        *("--image-opts", f"{piece},{source.image}", "--target-image-opts", f"{piece},{target}"),
    ]


def _failure(disk: DiskOffer, source: _Source, complaint: str) -> HostlerError:
    complaint = OPTIONS.sub("", complaint)
    if OURS.search(complaint):
        return RescheduleError(f"cannot write {disk.file}: {complaint}", remedy="free space on the host")
    return Unavailable(f"cannot fetch {disk.file} from {source.place}: {complaint}", remedy=source.remedy)


def _note(directory: Path, disk: DiskOffer, done: int) -> None:
    _sync(_part(directory, disk))
    _write_progress(directory, disk, done)


def _write_progress(directory: Path, disk: DiskOffer, offset: int) -> None:
    write_text(_progress(directory, disk), json.dumps(Arrived(disk.checksum, offset)._asdict()))


def _arrived(directory: Path, disk: DiskOffer) -> Arrived:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Arrived(**json.loads(_progress(directory, disk).read_text()))
    return Arrived("", 0)


def _forget(directory: Path, disk: DiskOffer) -> None:
    """Remove all of the file. A new one is another inode: whoever writes to the old one does no harm."""
    (directory / COMPLETE).unlink(missing_ok=True)
    for path in (_progress(directory, disk), _part(directory, disk), directory / disk.file):
        path.unlink(missing_ok=True)


def _part(directory: Path, disk: DiskOffer) -> Path:
    return directory / f"{disk.file}.part"


def _progress(directory: Path, disk: DiskOffer) -> Path:
    return directory / f"{disk.file}.progress"


def _rounded(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fdatasync(opened.fileno())
