"""Volumes as sparse raw files of this host, served to the guests of any host over NBD."""

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from drivers import durable
from drivers.blocking import BlockingCalls
from drivers.locks import Locks
from drivers.nbd import NbdServers
from drivers.revival import Revival
from drivers.sparse import stored_bytes
from drivers.strays import strays
from drivers.volume.base import Report
from drivers.volume.convert import to_raw
from hostler.contract.errors import InvalidRequest, NotFound, RescheduleError
from hostler.contract.guests import VolumeConnection, VolumeSpec
from hostler.contract.names import is_uuid

GIB = 1 << 30
PORTS = range(10810, 11810)
SUFFIX = ".raw"
EXPORTS = "exports"
EXPORT_PREFIX = "volume-"
THREADS = 8


class LocalVolumes:
    """A `VolumeDriver`: `<directory>/<volume id>.raw`, and what serves them in `<directory>/exports`."""

    def __init__(self, directory: Path, address: str, ports: range = PORTS) -> None:
        self._directory = directory.absolute()
        self._address = address
        self._servers = NbdServers(self._directory / EXPORTS, address, ports)
        self._calls = BlockingCalls("volume", THREADS)
        self._locks = Locks()
        self._room = threading.Lock()
        self._revival = Revival("the NBD server of volume", self._revive)

    async def create(self, volume: VolumeSpec, source: Path | None, report: Report) -> None:
        """See `VolumeDriver.create`. `source` is the file of `volume.image`."""
        size = volume.size_gib * GIB
        if volume.image and volume.image.virtual_size_bytes > size:
            raise InvalidRequest(
                f"image {volume.image.id} holds a disk of {volume.image.virtual_size_bytes} bytes, "
                f"more than the volume's {volume.size_gib} GiB",
                field="size_gib",
                value=volume.size_gib,
                remedy=f"ask for {-(-volume.image.virtual_size_bytes // GIB)} GiB or more",
            )
        async with self._locks(volume.volume_id):
            part = await self._calls.run(self._begin, volume.volume_id, size)
            if part is None:
                return
            try:
                if volume.image and source:
                    await to_raw(source, volume.image.disk_format, part, report)
                await self._calls.run(self._finish, volume.volume_id, part)
            finally:
                await self._calls.run(part.unlink, missing_ok=True)

    async def delete(self, volume_id: str) -> None:
        """See `VolumeDriver.delete`."""
        async with self._locks(volume_id):
            self._revival.forget(volume_id)
            await self._calls.run(self._delete, volume_id)

    async def export(self, volume_id: str) -> VolumeConnection:
        """See `VolumeDriver.export`. A server that has died is started again, on its old port if that is free.

        Raises:
            NotFound: there is no such volume here.
            RescheduleError: it cannot be served.
        """
        async with self._locks(volume_id):
            self._revival.pause(volume_id)
            connection = await self._calls.run(self._export, volume_id)
            await self._watch(volume_id)
            return connection

    async def withdraw(self, volume_id: str) -> None:
        """See `VolumeDriver.withdraw`."""
        async with self._locks(volume_id):
            self._revival.forget(volume_id)
            await self._calls.run(self._servers.stop, _export_name(volume_id))

    async def restart_exports(self) -> list[str]:
        """Serve again what was served before the machine went down; the IDs of the volumes that needed it."""
        dead = [volume_id for volume_id in await self.volumes() if await self._calls.run(self._died, volume_id)]
        for volume_id in dead:
            await self.export(volume_id)
        for volume_id in await self.exports():
            await self._watch(volume_id)
        return dead

    async def volumes(self) -> list[str]:
        """The IDs of the volumes that are here."""
        return await self._calls.run(self._volumes)

    async def exports(self) -> list[str]:
        """The IDs of the volumes that are being served now."""
        names = await self._calls.run(lambda: [n for n in self._servers.wanted() if self._servers.port(n)])
        return [name.removeprefix(EXPORT_PREFIX) for name in names]

    async def strays(self) -> list[str]:
        """See `VolumeDriver.strays`: half-made volumes, and what is left of exports that nobody serves."""
        return await self._calls.run(self._strays)

    async def close(self) -> None:
        """See `VolumeDriver.close`."""
        await self._revival.close()
        await self._calls.close()

    async def _watch(self, volume_id: str) -> None:
        self._revival.watch(volume_id, await self._calls.run(self._servers.handle, _export_name(volume_id)))

    async def _revive(self, volume_id: str) -> None:
        """Serve it again, if nobody withdrew it; its guests reconnect."""
        if await self._calls.run(self._died, volume_id):
            await self.export(volume_id)

    def _begin(self, volume_id: str, size: int) -> Path | None:
        """A file of zeros, of the volume's size, that may become the volume; None when the volume is there."""
        final = self._file(volume_id)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._remove_parts(volume_id)
        if final.exists():
            return None
        # A name of its own: the converter of a killed worker may still be writing into another.
        part = self._directory / f".{volume_id}.{uuid4().hex}.part"
        with self._room:
            room = shutil.disk_usage(self._directory).free - self._promised()
            if room < size:
                raise RescheduleError(
                    f"no room in {self._directory} for {size} bytes: {max(room, 0)} are free and not promised",
                    remedy="free space there, or make the volume on another host",
                )
            part.touch(mode=0o600)
            os.truncate(part, size)
        return part

    def _finish(self, volume_id: str, part: Path) -> None:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        durable.put_in_place(part, self._file(volume_id))

    def _delete(self, volume_id: str) -> None:
        self._servers.stop(_export_name(volume_id))
        self._file(volume_id).unlink(missing_ok=True)
        self._remove_parts(volume_id)

    def _export(self, volume_id: str) -> VolumeConnection:
        file, name = self._file(volume_id), _export_name(volume_id)
        if not file.exists():
            raise NotFound(f"volume {volume_id} is not on this host", field="volume", value=volume_id)
        port = self._servers.serve(name, file)
        return VolumeConnection(volume_id=volume_id, host=self._address, port=port, export=name)

    def _died(self, volume_id: str) -> bool:
        name = _export_name(volume_id)
        return name in self._servers.wanted() and self._servers.port(name) is None

    def _volumes(self) -> list[str]:
        return sorted(path.stem for path in self._directory.glob(f"*{SUFFIX}") if is_uuid(path.stem))

    def _strays(self) -> list[str]:
        volumes = set(self._volumes())
        files = {EXPORTS, *(f"{volume_id}{SUFFIX}" for volume_id in volumes)}

        def belongs(path: Path) -> bool:
            return path.stem.removeprefix(EXPORT_PREFIX) in volumes or self._servers.port(path.stem) is not None

        left = strays(self._directory / EXPORTS, belongs)
        return [*strays(self._directory, lambda path: path.name in files), *left]

    def _promised(self) -> int:
        """What the volumes here may still take of the disk, in bytes: their files are sparse."""
        files = [*self._directory.glob(f"*{SUFFIX}"), *self._directory.glob(".*.part")]
        return sum(_unwritten(file) for file in files)

    def _remove_parts(self, volume_id: str) -> None:
        for part in self._directory.glob(f".{volume_id}.*.part"):
            part.unlink(missing_ok=True)

    def _file(self, volume_id: str) -> Path:
        return self._directory / f"{_checked(volume_id)}{SUFFIX}"


def _export_name(volume_id: str) -> str:
    return f"{EXPORT_PREFIX}{_checked(volume_id)}"


def _checked(volume_id: str) -> str:
    """The ID, which may become a file's name."""
    if not is_uuid(volume_id):
        raise InvalidRequest("a volume ID is a UUID", field="volume", value=volume_id)
    return volume_id


def _unwritten(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size - stored_bytes(file)
    return 0
