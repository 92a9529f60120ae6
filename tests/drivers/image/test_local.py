"""The image store in a directory."""

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.image import copying
from drivers.image.local import LocalImageStore
from hostler.contract.errors import ImageRejected, InvalidRequest, NotFound, OperationFailed
from hostler.contract.resources import DiskFormat
from tests.drivers.image.conftest import MIB, MakeImage
from tests.drivers.observing import names

IMAGE = str(uuid4())


def ignore(done: int, total: int) -> None:
    """A caller that does not care about progress."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def store(directory: Path) -> LocalImageStore:
    return LocalImageStore(directory)


class TestAdd:
    def test_tells_what_it_took_in(self, store: LocalImageStore, convert: MakeImage) -> None:
        source = convert("qcow2")
        checksum = sha256(source.read_bytes()).hexdigest()
        stored = store.add(IMAGE, source, DiskFormat.QCOW2, checksum.upper(), ignore)
        assert (stored.size_bytes, stored.virtual_size_bytes, stored.checksum) == (
            source.stat().st_size,
            4 * MIB,
            checksum,
        )

    def test_reports_progress_up_to_the_end(self, store: LocalImageStore, raw: Path) -> None:
        reports: list[tuple[int, int]] = []
        store.add(IMAGE, raw, DiskFormat.RAW, None, lambda done, total: reports.append((done, total)))
        assert reports == [(n * MIB, 4 * MIB) for n in range(1, 5)]

    def test_keeps_the_holes_of_a_sparse_disk(self, store: LocalImageStore, tmp_path: Path, directory: Path) -> None:
        sparse = tmp_path / "sparse"
        with sparse.open("wb") as file:
            file.truncate(64 * MIB)
        store.add(IMAGE, sparse, DiskFormat.RAW, None, ignore)
        assert (directory / IMAGE).stat().st_size == 64 * MIB
        assert (directory / IMAGE).stat().st_blocks < 100

    def test_again_gives_the_same_answer_without_the_source(self, store: LocalImageStore, raw: Path) -> None:
        first = store.add(IMAGE, raw, DiskFormat.RAW, None, ignore)
        raw.unlink()
        assert store.add(IMAGE, raw, DiskFormat.RAW, first.checksum, ignore) == first

    def test_takes_over_what_a_killed_worker_left(self, store: LocalImageStore, raw: Path, directory: Path) -> None:
        directory.mkdir()
        (directory / f".{IMAGE}.part").write_bytes(bytes(9 * MIB))
        assert store.add(IMAGE, raw, DiskFormat.RAW, None, ignore).size_bytes == 4 * MIB
        assert names(directory) == [IMAGE]

    def test_leaves_nothing_of_a_rejected_image(
        self, store: LocalImageStore, convert: MakeImage, directory: Path
    ) -> None:
        with pytest.raises(ImageRejected):
            store.add(IMAGE, convert("vmdk"), DiskFormat.QCOW2, None, ignore)
        assert names(directory) == []

    def test_refuses_another_checksum(self, store: LocalImageStore, raw: Path, directory: Path) -> None:
        with pytest.raises(ImageRejected, match="SHA-256") as caught:
            store.add(IMAGE, raw, DiskFormat.RAW, "0" * 64, ignore)
        assert caught.value.detail.field == "checksum"
        assert names(directory) == []

    @pytest.mark.parametrize("name", ["missing", "directory", "fifo", "nul\0"])
    def test_names_a_path_that_it_cannot_read(self, store: LocalImageStore, tmp_path: Path, name: str) -> None:
        (tmp_path / "directory").mkdir()
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(InvalidRequest) as caught:
            store.add(IMAGE, tmp_path / name, DiskFormat.RAW, None, ignore)
        assert str(tmp_path / name) in str(caught.value)
        assert "readable by the control worker" in str(caught.value.remedy)

    def test_says_so_when_the_disk_is_full_and_is_not_to_be_asked_again(
        self, store: LocalImageStore, raw: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> copying.Digest:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(copying, "write_out", full)
        with pytest.raises(OperationFailed, match="no room") as caught:
            store.add(IMAGE, raw, DiskFormat.RAW, None, ignore)
        assert not caught.value.retryable, "each try would fill it again"
        assert "free space" in str(caught.value.remedy)
        assert names(directory) == []

    def test_an_id_is_never_a_path(self, store: LocalImageStore, raw: Path) -> None:
        with pytest.raises(InvalidRequest):
            store.add("../evil", raw, DiskFormat.RAW, None, ignore)


class TestRead:
    def test_gives_the_bytes_back(self, store: LocalImageStore, raw: Path) -> None:
        store.add(IMAGE, raw, DiskFormat.RAW, None, ignore)
        assert b"".join(store.read(IMAGE)) == raw.read_bytes()

    def test_an_unknown_image(self, store: LocalImageStore) -> None:
        with pytest.raises(NotFound):
            next(store.read(IMAGE))


class TestRemove:
    def test_may_be_repeated(self, store: LocalImageStore, raw: Path, directory: Path) -> None:
        store.add(IMAGE, raw, DiskFormat.RAW, None, ignore)
        store.remove(IMAGE)
        store.remove(IMAGE)
        assert names(directory) == []

    def test_takes_what_a_killed_import_left(self, store: LocalImageStore, directory: Path) -> None:
        directory.mkdir()
        (directory / f".{IMAGE}.part").touch()
        store.remove(IMAGE)
        assert names(directory) == []


class TestLooking:
    def test_tells_its_images_and_when_they_were_written(
        self, store: LocalImageStore, raw: Path, directory: Path
    ) -> None:
        store.add(IMAGE, raw, DiskFormat.RAW, None, ignore)
        os.utime(directory / IMAGE, (0, 0))
        (directory / f".{uuid4()}.part").touch()
        assert store.images() == {IMAGE: datetime.fromtimestamp(0, UTC)}

    def test_a_link_to_nowhere_is_no_image(self, store: LocalImageStore, directory: Path) -> None:
        directory.mkdir()
        (directory / IMAGE).symlink_to(directory / "nowhere")
        assert store.images() == {}

    def test_an_abandoned_import_is_a_stray_and_what_the_file_system_keeps_there_is_none(
        self, store: LocalImageStore, directory: Path
    ) -> None:
        abandoned, under_way = directory / f".{IMAGE}.part", directory / f".{uuid4()}.part"
        (directory / "lost+found").mkdir(parents=True)
        for path in (abandoned, under_way, directory / IMAGE):
            path.touch()
        for path in (abandoned, directory / IMAGE, directory / "lost+found"):
            os.utime(path, (0, 0))
        assert store.strays() == [str(abandoned)]

    def test_before_the_first_import_it_is_empty(self, store: LocalImageStore) -> None:
        assert (store.images(), store.strays()) == ({}, [])
