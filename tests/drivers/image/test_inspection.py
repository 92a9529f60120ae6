"""What tenants may upload, and what is refused before qemu opens it."""

import os
import struct
import textwrap
from pathlib import Path

import pytest

from drivers.image import qcow2, qemu_img
from drivers.image.inspection import inspect
from hostler.contract.errors import ImageRejected, Unavailable
from hostler.contract.resources import DiskFormat
from tests.drivers.image.conftest import MIB, MakeImage
from tests.drivers.image.conftest import qemu_img as make

CRYPT_METHOD, INCOMPATIBLE_FEATURES = 32, 72


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(data)


def rejected(path: Path, declared: DiskFormat = DiskFormat.QCOW2) -> ImageRejected:
    with pytest.raises(ImageRejected) as caught:
        inspect(path, declared, "my image")
    assert caught.value.remedy
    assert caught.value.detail.field == "disk_format" or caught.value.detail.value == "my image"
    return caught.value


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A small image whose table of tables names the same one a million times."""
    image = tmp_path / "bomb"
    make("create", "-f", "qcow2", image, "1M")
    l1_offset, l1_entries = 1 * MIB, 1 << 20
    overwrite(image, l1_offset, struct.pack(">Q", 2**63 | 512 * 1024) * l1_entries)
    overwrite(image, 24, struct.pack(">Q", l1_entries << 29))
    overwrite(image, 36, struct.pack(">IQ", l1_entries, l1_offset))
    return image


class TestAccepts:
    def test_a_raw_disk_whatever_its_size(self, raw: Path) -> None:
        assert inspect(raw, DiskFormat.RAW, "my image") == 4 * MIB

    def test_a_raw_disk_smaller_than_a_header(self, tmp_path: Path) -> None:
        (tmp_path / "tiny").write_bytes(b"\x90")
        assert inspect(tmp_path / "tiny", DiskFormat.RAW, "my image") == 1

    def test_a_raw_disk_with_a_boot_sector(self, raw: Path) -> None:
        overwrite(raw, 510, b"\x55\xaa")
        assert inspect(raw, DiskFormat.RAW, "my image") == 4 * MIB

    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["-c"],
            ["-c", "-o", "compression_type=zstd"],
            ["-o", "compat=0.10"],
            ["-o", "cluster_size=512"],
            ["-c", "-o", "cluster_size=2M"],
            ["-o", "preallocation=metadata"],
            ["-o", "lazy_refcounts=on"],
        ],
        ids=" ".join,
    )
    def test_a_qcow2_of_any_kind(self, convert: MakeImage, options: list[str]) -> None:
        assert inspect(convert("qcow2", *options), DiskFormat.QCOW2, "my image") == 4 * MIB

    def test_a_qcow2_without_data(self, tmp_path: Path) -> None:
        make("create", "-f", "qcow2", tmp_path / "blank", "1T")
        assert inspect(tmp_path / "blank", DiskFormat.QCOW2, "my image") == 1 << 40

    def test_a_qcow2_whose_disk_ends_within_a_cluster(self, tmp_path: Path) -> None:
        (tmp_path / "odd").write_bytes(os.urandom(100_000))
        make("convert", "-f", "raw", "-O", "qcow2", tmp_path / "odd", tmp_path / "odd.qcow2")
        assert inspect(tmp_path / "odd.qcow2", DiskFormat.QCOW2, "my image") == 100_352

    def test_a_qcow2_with_space_that_belongs_to_nobody(self, convert: MakeImage) -> None:
        image = convert("qcow2")
        with image.open("ab") as file:
            file.write(bytes(MIB))
        assert inspect(image, DiskFormat.QCOW2, "my image") == 4 * MIB


class TestRefusesAnotherFormatThanDeclared:
    @pytest.mark.parametrize("actual", ["vmdk", "vdi", "vhdx", "qed"])
    @pytest.mark.parametrize("declared", list(DiskFormat))
    def test_of_other_hypervisors(self, convert: MakeImage, actual: str, declared: DiskFormat) -> None:
        error = rejected(convert(actual), declared)
        assert error.detail.field == "disk_format"
        assert actual in str(error)

    def test_a_raw_that_is_a_qcow2(self, convert: MakeImage) -> None:
        assert "its content is qcow2" in str(rejected(convert("qcow2"), DiskFormat.RAW))

    def test_a_qcow2_that_is_raw(self, raw: Path) -> None:
        assert "its content is raw" in str(rejected(raw))

    def test_two_formats_in_one_file(self, convert: MakeImage) -> None:
        image = convert("qcow2")
        overwrite(image, 0x8001, b"CD001")  # an ISO 9660 volume, for those who look there
        assert "iso" in str(rejected(image))


class TestRefusesUnsafe:
    @pytest.mark.parametrize("backing", ["/etc/shadow", "json:{}", "nbd://127.0.0.1/x"])
    def test_a_backing_file(self, tmp_path: Path, backing: str) -> None:
        image = tmp_path / "image"
        make("create", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, image, "1G")
        error = rejected(image)
        assert "backing file" in str(error)
        assert error.detail.field == "file"

    def test_a_data_file(self, tmp_path: Path) -> None:
        make("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", tmp_path / "image", "1M")
        assert "data_file" in str(rejected(tmp_path / "image"))

    def test_unknown_features(self, convert: MakeImage) -> None:
        image = convert("qcow2")
        overwrite(image, INCOMPATIBLE_FEATURES, b"\x80")
        assert "Unknown QCOW2 features" in str(rejected(image))

    def test_encryption(self, convert: MakeImage) -> None:
        image = convert("qcow2")
        overwrite(image, CRYPT_METHOD, struct.pack(">I", 1))
        assert "encrypted" in str(rejected(image))


class TestRefusesDamaged:
    def test_nothing_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        assert "empty" in str(rejected(tmp_path / "empty", DiskFormat.RAW))

    def test_no_disk_inside(self, tmp_path: Path) -> None:
        make("create", "-f", "qcow2", tmp_path / "image", "0")
        assert "no size" in str(rejected(tmp_path / "image"))

    @pytest.mark.parametrize("options", [[], ["-c"], ["-c", "-o", "compression_type=zstd"]], ids=" ".join)
    @pytest.mark.parametrize("missing", [1024, 100_000, 1_900_000])
    def test_a_qcow2_cut_short(self, convert: MakeImage, options: list[str], missing: int) -> None:
        image = convert("qcow2", *options)
        os.truncate(image, image.stat().st_size - missing)
        assert "truncated" in str(rejected(image))

    @pytest.mark.parametrize("size", [100, 512, 70_000])
    def test_a_header_without_its_tables(self, convert: MakeImage, size: int) -> None:
        image = convert("qcow2")
        os.truncate(image, size)
        rejected(image)

    @pytest.mark.parametrize(
        ("offset", "value"),
        [
            (20, struct.pack(">I", 63)),  # cluster_bits
            (36, struct.pack(">I", 0xFFFF_FFFF)),  # l1_size
            (36, struct.pack(">I", 0)),
            (40, struct.pack(">Q", 0xFFFF_FFFF_0000)),  # l1_table_offset
            (48, struct.pack(">Q", 0xFFFF_FFFF_0000)),  # refcount_table_offset
            (56, struct.pack(">I", 0xFFFF_FFFF)),  # refcount_table_clusters
            (INCOMPATIBLE_FEATURES, struct.pack(">Q", 1 << 1)),  # marked as corrupt
            (4, struct.pack(">I", 9)),  # version
            (24, struct.pack(">Q", 1 << 62)),  # size
        ],
    )
    def test_a_header_that_lies(self, convert: MakeImage, offset: int, value: bytes) -> None:
        image = convert("qcow2")
        overwrite(image, offset, value)
        rejected(image)

    def test_reference_counts_that_contradict_the_tables(self, convert: MakeImage) -> None:
        image = convert("qcow2")
        (table,) = struct.unpack(">Q", image.read_bytes()[48:56])
        (block,) = struct.unpack(">Q", image.read_bytes()[table : table + 8])
        overwrite(image, block, bytes(64))
        assert "damaged" in str(rejected(image))


class TestLimits:
    def test_a_tool_that_eats_memory_is_stopped(self) -> None:
        hungry = "b = bytes(2 << 30)"
        assert qemu_img.run_limited("/usr/bin/python3", "-c", hungry).returncode != 0

    def test_a_tool_of_as_many_threads_as_qemu_may_start_is_not(self) -> None:
        threads = """
            import threading
            everyone = threading.Barrier(65)
            def work():
                b"allocated by this thread" * 1000
                everyone.wait()
            for _ in range(64):
                threading.Thread(target=work, daemon=True).start()
            everyone.wait()
        """
        done = qemu_img.run_limited("/usr/bin/python3", "-c", textwrap.dedent(threads))
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_tool_that_eats_time_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qemu_img, "CPU_LIMIT_SECONDS", 1)
        assert qemu_img.run_limited("/usr/bin/python3", "-c", "while True: pass").returncode < 0

    def test_a_missing_tool_is_named_with_its_package(self) -> None:
        with pytest.raises(Unavailable, match="no-such-tool is not installed") as caught:
            qemu_img.run_limited("no-such-tool")
        assert "qemu-utils" in str(caught.value.remedy)

    def test_an_image_whose_check_takes_too_much_is_refused_as_such(
        self, bomb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(qemu_img, "CPU_LIMIT_SECONDS", 1)
        assert "takes more than 30 s of processor time or 1 GiB of memory: Killed" in str(rejected(bomb))

    def test_shared_tables_do_not_multiply_the_work(self, bomb: Path) -> None:
        with bomb.open("rb") as file:
            qcow2.check_length(file)  # for ever, if it went through the same table a million times
