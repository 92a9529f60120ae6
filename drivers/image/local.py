"""The image store in a directory: one file an image, named by the image's ID."""

import errno
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from drivers.image import copying
from drivers.image.base import Progress, StoredImage
from drivers.image.inspection import inspect
from drivers.strays import strays
from hostler.contract.errors import ImageRejected, InvalidRequest, NotFound, OperationFailed
from hostler.contract.names import is_uuid
from hostler.contract.resources import DiskFormat

INCOMING = "incoming"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class LocalImageStore:
    """An `ImageStore`. What it inspects is its own copy: the caller's file may change at any time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(
        self, image_id: str, source: Path, disk_format: DiskFormat, checksum: str | None, progress: Progress
    ) -> StoredImage:
        """See `ImageStore.add`.

        Raises:
            OperationFailed: the store has no room. Another try would fill it again, at the cost of all who write there.
            Unavailable: qemu's tools are missing.
        """
        final = self._path(image_id)
        if final.exists():
            return _describe(final, str(source), copying.hash_file(final, progress), disk_format, checksum)
        size = _readable_size(source)
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            with copying.partial(final, keep_waiting=lambda: progress(0, size)) as part:
                if part is not None:
                    digest = copying.write_out(copying.pieces(source), part, size, progress)
                    return _describe(part, str(source), digest, disk_format, checksum)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise OperationFailed(
                    f"the image store {self._directory} has no room for {size} bytes",
                    remedy="free space in it, or set `images` to another directory",
                ) from error
            raise
        return self.add(image_id, source, disk_format, checksum, progress)  # somebody else has just added it

    def read(self, image_id: str) -> Iterator[bytes]:
        """See `ImageStore.read`."""
        try:
            yield from copying.pieces(self._path(image_id))
        except FileNotFoundError as error:
            raise NotFound(
                f"image {image_id} is not in the store {self._directory}", field="image", value=image_id
            ) from error

    def remove(self, image_id: str) -> None:
        """See `ImageStore.remove`."""
        self._path(image_id).unlink(missing_ok=True)
        self.incoming(image_id).unlink(missing_ok=True)
        copying.remove_abandoned(self._directory)

    def incoming(self, image_id: str) -> Path:
        """See `ImageStore.incoming`: in a directory of its own, which is all that hosts need to write."""
        return self._directory / INCOMING / self._path(image_id).name

    def written_at(self, image_id: str) -> datetime | None:
        """See `ImageStore.written_at`."""
        with suppress(FileNotFoundError):
            return datetime.fromtimestamp(self._path(image_id).stat().st_mtime, UTC)
        return None

    def images(self) -> dict[str, datetime]:
        """See `ImageStore.images`. One that is removed meanwhile is none."""
        names = [path.name for path in self._directory.iterdir()] if self._directory.is_dir() else []
        written = {name: self.written_at(name) for name in names if is_uuid(name)}
        return {name: at for name, at in written.items() if at is not None}

    def strays(self) -> list[str]:
        """See `ImageStore.strays`. Directories are not Hostler's: `lost+found`, snapshots."""
        try:
            left = strays(self._directory / INCOMING, lambda _: False)
        except PermissionError:  # made by somebody else: to be told, as it keeps snapshots from being taken in
            left = [str(self._directory / INCOMING)]
        return [*strays(self._directory, lambda path: is_uuid(path.name) or path.is_dir()), *left]

    def _path(self, image_id: str) -> Path:
        if not is_uuid(image_id):  # it becomes a file name
            raise InvalidRequest("an image ID is a UUID", field="id", value=image_id)
        return self._directory / image_id


def _readable_size(source: Path) -> int:
    remedy = "the path must be a file that is readable by the control worker"
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):  # a FIFO would never end
            raise InvalidRequest(f"{source} is not a file", field="path", value=source, remedy=remedy)
        with source.open("rb"):
            return status.st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidRequest(
            f"{source} cannot be read: {getattr(error, 'strerror', error)}", field="path", value=source, remedy=remedy
        ) from error


def _describe(
    path: Path, name: str, digest: copying.Digest, disk_format: DiskFormat, checksum: str | None
) -> StoredImage:
    if checksum is not None and checksum.lower() != digest.checksum:
        raise ImageRejected(
            f"the image's SHA-256 is {digest.checksum} instead of {checksum.lower()}",
            field="checksum",
            value=checksum,
            remedy="copy the file again, or declare its own checksum (`sha256sum FILE`)",
        )
    virtual_size = inspect(path, disk_format, name)
    return StoredImage(size_bytes=digest.size_bytes, virtual_size_bytes=virtual_size, checksum=digest.checksum)
