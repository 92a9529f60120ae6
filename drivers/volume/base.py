"""What Hostler asks of the volume service on the host that keeps a volume's data. Every call may be repeated."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hostler.contract.guests import VolumeConnection, VolumeSpec

Report = Callable[[str], None]


class VolumeDriver(Protocol):
    """The volumes of one host."""

    async def create(self, volume: VolumeSpec, source: Path | None, report: Report) -> None:
        """Make the volume: blank, or with the content of the image file `source`.

        Raises:
            RescheduleError: there is no room for it here.
            InvalidRequest: the image is larger than the volume.
        """

    async def delete(self, volume_id: str) -> None:
        """Remove the volume's data and export, whatever there is of it."""

    async def export(self, volume_id: str) -> VolumeConnection:
        """Serve the volume so that the guests of any host reach it; the same answer while it is being served."""

    async def withdraw(self, volume_id: str) -> None:
        """Stop serving it."""

    async def volumes(self) -> list[str]:
        """The IDs of the volumes whose data is here."""

    async def exports(self) -> list[str]:
        """The IDs of the volumes that are being served now."""

    async def strays(self) -> list[str]:
        """Files that belong to no volume."""

    async def close(self) -> None:
        """Let go of resources; exports stay."""
