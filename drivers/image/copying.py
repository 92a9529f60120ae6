"""Takes an image's bytes in: one pass that writes, counts and hashes, and leaves holes where there are only zeros."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from drivers.durable import put_in_place
from drivers.image.base import Progress

PIECE_BYTES = 1 << 20
PIECES_PER_SYNC = 64
PART_SUFFIX = ".part"
LOCK_POLL_SECONDS = 0.1
_ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True)
class Digest:
    """What a stream turned out to be."""

    size_bytes: int
    checksum: str


def pieces(path: Path) -> Iterator[bytes]:
    """The file's bytes, in pieces."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def write_out(source: Iterable[bytes], target: Path, total_bytes: int, progress: Progress) -> Digest:
    """Write the stream into the empty file `target`, sparsely, and force it to the disk.

    It is forced there as it goes, before `progress` is told, so that no single time is long.
    """
    digest = hashlib.sha256()
    done = 0
    with target.open("rb+") as file:
        for number, piece in enumerate(source, start=1):
            digest.update(piece)
            if piece == _ZEROS[: len(piece)]:
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
            done += len(piece)
            if number % PIECES_PER_SYNC == 0:
                file.flush()
                os.fdatasync(file.fileno())
            progress(done, total_bytes)
        file.truncate(done)
        file.flush()
        os.fsync(file.fileno())
    return Digest(done, digest.hexdigest())


def hash_file(path: Path, progress: Progress) -> Digest:
    """What a file holds, as `write_out` would have told it."""
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    for piece in pieces(path):
        digest.update(piece)
        done += len(piece)
        progress(done, total)
    return Digest(done, digest.hexdigest())


@contextmanager
def partial(final: Path, keep_waiting: Callable[[], None]) -> Iterator[Path | None]:
    """An empty file that takes the name `final` in one step when the block ends well, and is removed when it does not.

    None when `final` is there already. One process at a time holds the partial file's lock; others wait, calling
    `keep_waiting` meanwhile, which may raise to give up. What a killed process left is used again.
    """
    part = final.with_name(f".{final.name}{PART_SUFFIX}")
    lock = _lock(part, final, keep_waiting)
    if lock is None:
        yield None
        return
    with lock:
        try:
            lock.truncate(0)
            yield part
            part.chmod(0o644)  # QEMU runs as a user of its own
            put_in_place(part, final)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _lock(part: Path, final: Path, keep_waiting: Callable[[], None]) -> BinaryIO | None:
    """The partial file, open and locked, or None when `final` is there."""
    while not final.exists():
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "rb+")
        if _try_lock(file):
            if _is_at(file, part) and not final.exists():
                return file
            if _is_at(file, part):
                part.unlink()
        else:
            keep_waiting()
            time.sleep(LOCK_POLL_SECONDS)
        file.close()
    return None


def remove_abandoned(directory: Path) -> None:
    """Remove the partial files that no process is writing."""
    for part in directory.glob(f".*{PART_SUFFIX}"):
        with suppress(FileNotFoundError), part.open("rb+") as file:
            if _try_lock(file) and _is_at(file, part):
                part.unlink()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
