"""Serves the disks of guests that were set aside to their next hosts: byte for byte, over NBD with TLS.

Each offer has a key of its own. What is kept in `<directory>/<server id>/` outlives the worker, as the servers do:

- `tls/keys.psk`: the pre-shared key, for its owner only,
- `checksums.json`: each file's SHA-256, with the size and the time of change that it had.
"""

import json
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from drivers.blocking import BlockingCalls
from drivers.converting import flatten
from drivers.durable import write_text
from drivers.hypervisor.base import Report
from drivers.hypervisor.libvirt.checksums import checksum
from drivers.hypervisor.libvirt.disks import has_backing_file, virtual_size
from drivers.hypervisor.libvirt.files import GuestFiles, movable_disk
from drivers.hypervisor.libvirt.peers import refuse_loopback
from drivers.hypervisor.reporting import reporting
from drivers.nbd import NbdServers, read_key, write_key
from drivers.sparse import stored_bytes
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import DiskOffer, DisksOffer
from hostler.contract.names import is_uuid

PORTS = range(11810, 12810)
SERVERS = "servers"
KEY_BYTES = 32
PRIVATE = 0o700


class Sum(NamedTuple):
    """A file's checksum, and what the file was like: one that differs has another."""

    size: int
    mtime_ns: int
    checksum: str


class Offers:
    """The offers of one host. One call at a time for a server."""

    def __init__(self, directory: Path, address: str, blocking: BlockingCalls, ports: range = PORTS) -> None:
        self._directory = directory
        self._address = address
        self._blocking = blocking
        self._servers = NbdServers(directory / SERVERS, address, ports)

    def refuse_closed(self, files: GuestFiles) -> None:
        """See that other hosts could reach the disks of this guest. Blocks. Those that hosts share they need not fetch.

        Raises:
            RescheduleError: they could not.
        """
        if not files.is_shared and any(map(_is_disk, files.directory.glob("*"))):
            refuse_loopback(self._address, f"no other host can fetch the guest's disks from {self._address}")

    async def make(self, former: GuestFiles, server_id: str, report: Report) -> DisksOffer:
        """See `HypervisorDriver.offer_disks`; `former` has the files."""
        key = await self._blocking.run(self._key, server_id)
        files = await self._blocking.run(lambda: sorted(filter(_is_disk, former.disk_directory.iterdir())))
        offers = [await self._offer(server_id, file, report) for file in files]
        return DisksOffer(server_id=server_id, disks=offers, key=key)

    async def flatten(self, former: GuestFiles, server_id: str, report: Report) -> None:
        """Make the root disk stand alone, if there is one that does not.

        Raises:
            RescheduleError: there is no room, or no image any more.
        """
        disk = former.root_disk
        if not await self._blocking.run(lambda: disk.exists() and has_backing_file(disk)):
            return
        await self._blocking.run(self._servers.stop, _export(server_id, disk))  # it would serve a disk that changes
        size = await self._blocking.run(virtual_size, disk)
        done = 0

        def progress(percent: int) -> None:
            nonlocal done
            done = percent

        async with reporting(report, lambda: f"flattening the root disk: {done} %"):
            complaint = await flatten(disk, size, progress)
        if complaint:
            raise RescheduleError(f"the root disk cannot be made to stand alone: {complaint}")

    async def withdraw(self, server_id: str) -> None:
        """See `HypervisorDriver.withdraw_offer`."""
        await self._blocking.run(self._withdraw, server_id)

    def servers(self) -> list[str]:
        """The servers of which something is offered. Blocks."""
        found = self._directory.iterdir() if self._directory.exists() else []
        return sorted(path.name for path in found if is_uuid(path.name))

    async def _offer(self, server_id: str, file: Path, report: Report) -> DiskOffer:
        found = await self._sum(server_id, file, report)
        stored = await self._blocking.run(stored_bytes, file)
        name = _export(server_id, file)
        port = await self._blocking.run(lambda: self._servers.serve(name, file, keys=self._keys(server_id)))
        return DiskOffer(
            file=file.name,
            size_bytes=found.size,
            stored_bytes=stored,
            checksum=found.checksum,
            host=self._address,
            port=port,
            export=name,
        )

    async def _sum(self, server_id: str, file: Path, report: Report) -> Sum:
        known = await self._blocking.run(self._known_sums, server_id)
        status = await self._blocking.run(file.stat)
        found = known.get(file.name)
        if found is None or found[:2] != (status.st_size, status.st_mtime_ns):
            done = 0

            def progress(count: int) -> None:
                nonlocal done
                done = count

            async with reporting(report, lambda: f"checksum of {file.name}: {100 * done // status.st_size} %"):
                digest = await checksum(file, self._blocking, progress)
            found = known[file.name] = Sum(status.st_size, status.st_mtime_ns, digest)
            await self._blocking.run(write_text, self._sums(server_id), json.dumps(known))
        return found

    def _key(self, server_id: str) -> str:
        directory = self._directory / server_id
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(PRIVATE)
            key = read_key(self._keys(server_id))
            if not key:
                key = secrets.token_hex(KEY_BYTES)
                write_key(self._keys(server_id), key)
        except OSError as error:
            raise RescheduleError(f"cannot keep the key of an offer: {error}") from error
        return key

    def _withdraw(self, server_id: str) -> None:
        for name in self._servers.started():
            if name.startswith(f"{server_id}."):
                self._servers.stop(name)
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory / server_id)

    def _known_sums(self, server_id: str) -> dict[str, Sum]:
        with suppress(FileNotFoundError, ValueError, TypeError):
            return {name: Sum(*fields) for name, fields in json.loads(self._sums(server_id).read_text()).items()}
        return {}

    def _keys(self, server_id: str) -> Path:
        return self._directory / server_id / "tls"

    def _sums(self, server_id: str) -> Path:
        return self._directory / server_id / "checksums.json"


def _export(server_id: str, file: Path) -> str:
    return f"{server_id}.{file.name}"


def _is_disk(path: Path) -> bool:
    return movable_disk(path.name) and path.is_file()
