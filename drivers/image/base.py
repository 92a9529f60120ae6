"""What Hostler asks of an image store."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from hostler.contract.resources import DiskFormat

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) as data moves."""


class StoredImage(BaseModel):
    """What the store found out while it took an image in."""

    size_bytes: int
    virtual_size_bytes: int
    checksum: str


class ImageStore(Protocol):
    """Where images are kept. All calls block; callers run them on threads."""

    def add(
        self, image_id: str, source: Path, disk_format: DiskFormat, checksum: str | None, progress: Progress
    ) -> StoredImage:
        """Inspect and copy a file into the store; doing it again gives the same answer.

        Raises:
            ImageRejected: another format than declared, another checksum, damaged, or unsafe (backing or data file).
            InvalidRequest: the file cannot be read.
        """

    def read(self, image_id: str) -> Iterator[bytes]:
        """The image's bytes, in pieces.

        Raises:
            NotFound: the store has no such image.
        """

    def remove(self, image_id: str) -> None:
        """Remove the image, if it is there."""

    def incoming(self, image_id: str) -> Path:
        """Where a host leaves a file for the store to take in with `add`; `remove` removes it, too."""

    def written_at(self, image_id: str) -> datetime | None:
        """When the image was written last; None when the store does not have it."""

    def images(self) -> dict[str, datetime]:
        """The IDs of the images that are here, and when each was last written to."""

    def strays(self) -> list[str]:
        """Files that are no image: imports that were given up."""
