"""Volumes that only remember: a JSON file each, which outlives the worker. Nothing is served.

Only one process at a time may use a directory.
"""

from pathlib import Path

from pydantic import BaseModel

from drivers.durable import write_text
from drivers.faults import SimulatedFaults
from drivers.strays import strays
from drivers.volume.base import Report
from hostler.contract.errors import NotFound
from hostler.contract.guests import VolumeConnection, VolumeSpec
from hostler.settings import SimulatedSettings

ADDRESS, PORT = "192.0.2.1", 10809
"""Where nobody is (TEST-NET-1), since nobody connects."""


class SimulatedVolume(BaseModel):
    """What is remembered of a volume."""

    volume_id: str
    size_gib: int
    exported: bool = False


class SimulatedVolumes:
    """A `VolumeDriver` for a simulated host, with its latencies and faults."""

    def __init__(self, settings: SimulatedSettings, name: str, directory: Path) -> None:
        self._faults = SimulatedFaults(settings, name, directory)
        self._directory = directory / "volumes"
        self._directory.mkdir(parents=True, exist_ok=True)
        files = self._directory.glob("*.json")
        self._volumes = {file.stem: SimulatedVolume.model_validate_json(file.read_text()) for file in files}

    async def create(self, volume: VolumeSpec, source: Path | None, report: Report) -> None:
        """See `VolumeDriver.create`. `source` is not looked at."""
        await self._faults.before("create", report)
        if volume.volume_id not in self._volumes:
            self._write(SimulatedVolume(volume_id=volume.volume_id, size_gib=volume.size_gib))

    async def delete(self, volume_id: str) -> None:
        """See `VolumeDriver.delete`."""
        await self._faults.before("delete")
        self._path(volume_id).unlink(missing_ok=True)
        self._volumes.pop(volume_id, None)

    async def export(self, volume_id: str) -> VolumeConnection:
        """See `VolumeDriver.export`.

        Raises:
            NotFound: there is no such volume here.
        """
        await self._faults.before("export")
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise NotFound(f"volume {volume_id} is not on this host", field="volume", value=volume_id)
        self._write(volume.model_copy(update={"exported": True}))
        return VolumeConnection(volume_id=volume_id, host=ADDRESS, port=PORT, export=f"volume-{volume_id}")

    async def withdraw(self, volume_id: str) -> None:
        """See `VolumeDriver.withdraw`."""
        await self._faults.before("withdraw")
        if volume := self._volumes.get(volume_id):
            self._write(volume.model_copy(update={"exported": False}))

    async def volumes(self) -> list[str]:
        """The IDs of the volumes that are here."""
        return sorted(self._volumes)

    async def exports(self) -> list[str]:
        """The IDs of the volumes that are being served."""
        return sorted(volume.volume_id for volume in self._volumes.values() if volume.exported)

    async def strays(self) -> list[str]:
        """Files that are no volume's."""
        return strays(self._directory, lambda path: path.suffix == ".json" and path.stem in self._volumes)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _path(self, volume_id: str) -> Path:
        return self._directory / f"{volume_id}.json"

    def _write(self, volume: SimulatedVolume) -> None:
        write_text(self._path(volume.volume_id), volume.model_dump_json(), sync=False)
        self._volumes[volume.volume_id] = volume
