"""A host's image cache."""

import asyncio
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.image import cache as cache_module
from drivers.image.base import ImageStore, StoredImage
from drivers.image.cache import ImageCache
from drivers.image.copying import pieces
from drivers.image.local import LocalImageStore
from hostler.contract.errors import ImageRejected, NotFound, RescheduleError, Unavailable
from hostler.contract.guests import ImageRef
from hostler.contract.resources import DiskFormat
from tests.drivers.image.conftest import MIB, MakeImage
from tests.drivers.observing import names, until


def ignore(done: int, total: int) -> None:
    """A build that does not care about progress."""


class CountingStore(ImageStore):
    """A store with one image. It gives its first bytes at once and the others when `go` is set."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.downloads = 0
        self.go = threading.Event()
        self.go.set()

    def add(self, *_: object) -> StoredImage:
        raise AssertionError("a cache only reads")

    def remove(self, image_id: str) -> None:
        raise AssertionError("a cache only reads")

    def written_at(self, image_id: str) -> datetime | None:
        raise AssertionError("a cache only reads")

    def images(self) -> dict[str, datetime]:
        raise AssertionError("a cache only reads")

    def strays(self) -> list[str]:
        raise AssertionError("a cache only reads")

    def incoming(self, image_id: str) -> Path:
        raise AssertionError("a cache only reads")

    def read(self, image_id: str) -> Iterator[bytes]:
        self.downloads += 1
        for piece in pieces(self.file):
            yield piece
            assert self.go.wait(timeout=30)


@pytest.fixture
def store(convert: MakeImage) -> CountingStore:
    return CountingStore(convert("qcow2"))


@pytest.fixture
def ref(store: CountingStore) -> ImageRef:
    return ImageRef(
        id=str(uuid4()),
        disk_format=DiskFormat.QCOW2,
        size_bytes=store.file.stat().st_size,
        virtual_size_bytes=4 * MIB,
        checksum=sha256(store.file.read_bytes()).hexdigest(),
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cache"


@pytest.fixture
async def cache(directory: Path, store: CountingStore) -> AsyncIterator[ImageCache]:
    cache = ImageCache(directory, store)
    yield cache
    store.go.set()
    await cache.close()


async def test_an_image_is_downloaded_once_and_stays(
    cache: ImageCache, store: CountingStore, ref: ImageRef, directory: Path
) -> None:
    path = await cache.fetch(ref, ignore)
    assert path == directory / ref.id
    assert path.read_bytes() == store.file.read_bytes()
    assert await cache.fetch(ref, ignore) == path
    assert await ImageCache(directory, store).fetch(ref, ignore) == path
    assert store.downloads == 1
    assert cache.cached() == [ref.id]


async def test_many_builds_share_one_download_and_all_hear_of_it(
    cache: ImageCache, store: CountingStore, ref: ImageRef
) -> None:
    reports: list[list[tuple[int, int]]] = [[] for _ in range(20)]
    fetches = [
        cache.fetch(ref, lambda done, total, mine=mine: mine.append((done, total)))  # type: ignore[misc]  # mypy infers no such lambda
        for mine in reports
    ]
    assert len(set(await asyncio.gather(*fetches))) == 1
    assert store.downloads == 1
    assert all(mine[-1] == (ref.size_bytes, ref.size_bytes) for mine in reports)


async def test_caches_of_two_processes_share_one_download(
    cache: ImageCache, store: CountingStore, ref: ImageRef, directory: Path
) -> None:
    store.go.clear()
    neighbour = ImageCache(directory, store)
    first = asyncio.create_task(cache.fetch(ref, ignore))
    await until(lambda: store.downloads == 1)
    waiting = asyncio.Event()
    second = asyncio.create_task(neighbour.fetch(ref, lambda done, total: waiting.set()))
    await waiting.wait()
    store.go.set()
    assert await first == await second
    assert store.downloads == 1
    await neighbour.close()


async def test_a_cancelled_build_leaves_the_download_to_the_others(
    cache: ImageCache, store: CountingStore, ref: ImageRef
) -> None:
    store.go.clear()
    first, second = (asyncio.create_task(cache.fetch(ref, ignore)) for _ in range(2))
    await until(lambda: store.downloads == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.go.set()
    assert (await second).exists()
    assert store.downloads == 1


async def test_a_download_whose_builds_are_all_cancelled_still_arrives(
    cache: ImageCache, store: CountingStore, ref: ImageRef
) -> None:
    store.go.clear()
    build = asyncio.create_task(cache.fetch(ref, ignore))
    await until(lambda: store.downloads == 1)
    build.cancel()
    with suppress(asyncio.CancelledError):
        await build
    store.go.set()
    await until(lambda: cache.cached() == [ref.id])


async def test_closing_stops_a_download_and_leaves_nothing(
    cache: ImageCache, store: CountingStore, ref: ImageRef, directory: Path
) -> None:
    store.go.clear()
    build = asyncio.create_task(cache.fetch(ref, ignore))
    await until(lambda: store.downloads == 1)
    closing = asyncio.create_task(cache.close())
    await asyncio.sleep(0)
    store.go.set()
    await closing
    with pytest.raises(Unavailable, match="stopped during the download"):
        await build
    assert names(directory) == []


def test_what_a_killed_worker_left_is_removed(store: CountingStore, ref: ImageRef, directory: Path) -> None:
    directory.mkdir(parents=True)
    part = directory / f".{ref.id}.part"
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX);"
        "f.write(bytes(100)); f.flush(); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, part], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        ImageCache(directory, store)
        assert part.exists(), "the download of a living process stays"
        worker.kill()
    ImageCache(directory, store)
    assert not part.exists()


async def test_a_partial_file_that_nobody_writes_is_started_again(
    cache: ImageCache, store: CountingStore, ref: ImageRef, directory: Path
) -> None:
    (directory / f".{ref.id}.part").write_bytes(bytes(9 * MIB))
    path = await cache.fetch(ref, ignore)
    assert path.read_bytes() == store.file.read_bytes()
    assert names(directory) == [ref.id]


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
async def test_qemu_may_read_it_whatever_the_umask(cache: ImageCache, ref: ImageRef, directory: Path) -> None:
    path = await cache.fetch(ref, ignore)
    modes = [stat.filemode(p.stat().st_mode) for p in (path, directory, directory.parent)]
    assert modes == ["-rw-r--r--", "drwxr-xr-x", "drwxr-xr-x"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"checksum": "0" * 64}, "SHA-256"), ({"size_bytes": 10}, "larger"), ({"disk_format": "raw"}, "qcow2")],
)
async def test_what_is_not_the_image_is_not_put_in_place(
    cache: ImageCache, ref: ImageRef, directory: Path, change: dict[str, object], complaint: str
) -> None:
    wrong = ImageRef.model_validate(ref.model_dump() | change)
    with pytest.raises(ImageRejected, match=complaint):
        await cache.fetch(wrong, ignore)
    assert names(directory) == []


async def test_a_base_image_that_something_has_cut_is_not_used_and_not_replaced(
    cache: ImageCache, ref: ImageRef
) -> None:
    path = await cache.fetch(ref, ignore)
    os.truncate(path, 5)
    with pytest.raises(RescheduleError, match="5 bytes instead of"):
        await cache.fetch(ref, ignore)
    assert path.stat().st_size == 5


async def test_a_full_disk_sends_the_build_elsewhere(cache: ImageCache, ref: ImageRef, directory: Path) -> None:
    larger = ref.model_copy(update={"size_bytes": 1 << 60})
    with pytest.raises(RescheduleError, match="no room"):
        await cache.fetch(larger, ignore)
    assert names(directory) == []


async def test_missing_tools_send_the_build_elsewhere(
    cache: ImageCache, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        raise Unavailable("qemu-img is not installed here")

    monkeypatch.setattr(cache_module, "inspect", missing)
    with pytest.raises(RescheduleError, match="qemu-img"):
        await cache.fetch(ref, ignore)


async def test_a_failure_is_everybodys_and_the_next_call_tries_again(
    cache: ImageCache, store: CountingStore, ref: ImageRef
) -> None:
    good = store.file
    store.file = good.with_name("missing")
    answers = await asyncio.gather(*(cache.fetch(ref, ignore) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, FileNotFoundError) for answer in answers)
    store.file = good
    assert (await cache.fetch(ref, ignore)).exists()


async def test_an_image_that_the_store_does_not_have(tmp_path: Path, directory: Path, ref: ImageRef) -> None:
    cache = ImageCache(directory, LocalImageStore(tmp_path / "nothing"))
    with pytest.raises(NotFound):
        await cache.fetch(ref, ignore)
    await cache.close()


async def test_removing_may_be_repeated(cache: ImageCache, ref: ImageRef) -> None:
    await cache.fetch(ref, ignore)
    cache.remove(ref.id)
    cache.remove(ref.id)
    assert cache.cached() == []
