"""A host's image cache: each image is downloaded once, however many builds want it at the same time."""

import asyncio
import contextvars
import errno
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drivers.blocking import BlockingCalls
from drivers.directories import make_traversable
from drivers.image import copying
from drivers.image.base import ImageStore, Progress
from drivers.image.inspection import inspect
from drivers.strays import strays
from hostler.contract.errors import ImageRejected, RescheduleError, Unavailable
from hostler.contract.guests import ImageRef
from hostler.contract.names import is_uuid

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
PARALLEL_DOWNLOADS = 4


@dataclass
class _Download:
    """One download and the builds that wait for it, each told of progress in its own context."""

    task: asyncio.Task[Path]
    waiters: list[tuple[Progress, contextvars.Context]] = field(default_factory=list)


class ImageCache:
    """The directory of base images, `<directory>/<image id>`, over which guests' disks are made.

    Nothing in it is ever written over: overlays depend on it.
    """

    def __init__(self, directory: Path, store: ImageStore) -> None:
        self._directory = directory
        self._store = store
        self._downloads: dict[str, _Download] = {}
        self._calls = BlockingCalls("image", PARALLEL_DOWNLOADS)
        self._closing = threading.Event()
        make_traversable(directory)
        copying.remove_abandoned(directory)

    async def fetch(self, ref: ImageRef, progress: Progress) -> Path:
        """The image's file, downloaded if it is not there. A cancelled caller leaves the download to the others.

        Raises:
            NotFound: the store has no such image.
            ImageRejected: what arrived is not what the image is said to be, or unsafe.
            RescheduleError: this host has no room for it, or no tools.
            Unavailable: the cache was closed meanwhile.
        """
        download = self._downloads.get(ref.id)
        if download is None:
            download = _Download(asyncio.create_task(self._run(ref)))
            self._downloads[ref.id] = download
            download.task.add_done_callback(lambda task: self._finished(ref.id, task))
        waiter = (progress, contextvars.copy_context())
        download.waiters.append(waiter)
        try:
            return await asyncio.shield(download.task)
        finally:
            download.waiters.remove(waiter)

    def holds(self, image_id: str) -> bool:
        """Whether an image is here."""
        return self._path(image_id).exists()

    def cached(self) -> list[str]:
        """The IDs of the images that are here."""
        return sorted(path.name for path in self._directory.iterdir() if is_uuid(path.name))

    def strays(self) -> list[str]:
        """Files that are no image: downloads that were given up."""
        return strays(self._directory, lambda path: is_uuid(path.name))

    def remove(self, image_id: str) -> None:
        """Remove an image, if it is here. The caller knows that no guest's disk depends on it."""
        self._path(image_id).unlink(missing_ok=True)

    async def close(self) -> None:
        """Stop the downloads that run."""
        self._closing.set()
        tasks = [download.task for download in self._downloads.values()]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._calls.close()

    def _path(self, image_id: str) -> Path:
        if not is_uuid(image_id):  # it becomes a file name
            raise ImageRejected("an image ID is a UUID", field="image", value=image_id)
        return self._directory / image_id

    async def _run(self, ref: ImageRef) -> Path:
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            if self._closing.is_set():
                raise Unavailable(f"the worker stopped during the download of image {ref.id}")
            loop.call_soon_threadsafe(self._tell, ref.id, done, total)

        return await self._calls.run(self._download, ref, progress)

    def _tell(self, image_id: str, done: int, total: int) -> None:
        if download := self._downloads.get(image_id):
            for progress, context in download.waiters:
                context.run(progress, done, total)

    def _finished(self, image_id: str, task: asyncio.Task[Path]) -> None:
        del self._downloads[image_id]
        if not task.cancelled():
            task.exception()  # seen, even if every waiter has gone

    def _download(self, ref: ImageRef, progress: Progress) -> Path:
        final = self._path(ref.id)
        try:
            with copying.partial(final, keep_waiting=lambda: progress(0, ref.size_bytes)) as part:
                if part is None:
                    _check_size(final, ref)
                else:
                    self._fill(part, ref, progress)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _no_room(self._directory, ref) from error
            raise
        return final

    def _fill(self, part: Path, ref: ImageRef, progress: Progress) -> None:
        if shutil.disk_usage(self._directory).free < ref.size_bytes:
            raise _no_room(self._directory, ref)
        digest = copying.write_out(self._read(ref), part, ref.size_bytes, progress)
        if digest.checksum != ref.checksum:
            raise ImageRejected(
                f"image {ref.id} arrived with SHA-256 {digest.checksum} instead of {ref.checksum}",
                field="checksum",
                value=ref.checksum,
                remedy="the image store's copy is damaged: import the image again",
            )
        try:
            inspect(part, ref.disk_format, ref.id)
        except Unavailable as error:
            raise RescheduleError(str(error), remedy=error.remedy) from error

    def _read(self, ref: ImageRef) -> Iterator[bytes]:
        """The image's bytes, but never more than it is said to have."""
        done = 0
        for piece in self._store.read(ref.id):
            done += len(piece)
            if done > ref.size_bytes:
                raise ImageRejected(
                    f"image {ref.id} is larger than its {ref.size_bytes} bytes", field="image", value=ref.id
                )
            yield piece


def _check_size(path: Path, ref: ImageRef) -> None:
    """Notice a base image that something has cut or grown. It is not replaced: disks may depend on it."""
    size = path.stat().st_size
    if size != ref.size_bytes:
        raise RescheduleError(
            f"the cached copy of image {ref.id} has {size} bytes instead of {ref.size_bytes}",
            remedy=f"when no guest's disk depends on it, remove {path}",
        )


def _no_room(directory: Path, ref: ImageRef) -> RescheduleError:
    return RescheduleError(
        f"no room in {directory} for image {ref.id} of {ref.size_bytes} bytes",
        remedy="free space on the host's disk",
    )
