"""A guest's disks, made by the real tools and asked by them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.hypervisor.libvirt.disks import make_disks, supports_direct_io
from drivers.hypervisor.libvirt.files import GuestFiles
from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk
from hostler.contract.resources import DiskFormat
from tests.drivers.hypervisor.libvirt.guests import MIB, guest, image_ref, root_disk


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A qcow2 image of 4 MiB."""
    file = tmp_path / "base"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "4M"], check=True)
    return file


def make(tmp_path: Path, *disks: GuestDisk, base: Path | None = None) -> GuestFiles:
    files = GuestFiles(tmp_path)
    make_disks(guest(*disks), files, base)
    return files


def info(file: Path) -> dict[str, Any]:
    done = subprocess.run(["qemu-img", "info", "--output=json", file], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def blkid(file: Path) -> str:
    done = subprocess.run(
        ["/usr/sbin/blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "LABEL", file], capture_output=True, text=True
    )
    return " ".join(sorted(done.stdout.split()))


@pytest.mark.parametrize(("size_bytes", "expected"), [(8 * MIB, 8 * MIB), (0, 4 * MIB)])
def test_the_root_disk_is_an_overlay_on_the_image(tmp_path: Path, base: Path, size_bytes: int, expected: int) -> None:
    image = image_ref(base, DiskFormat.QCOW2, 4 * MIB)
    make(tmp_path, root_disk(image, size_bytes), base=base)
    found = info(tmp_path / "disk")
    assert found["format"] == "qcow2"
    assert found["virtual-size"] == expected
    assert (found["backing-filename"], found["backing-filename-format"]) == (str(base), "qcow2")


def test_an_image_larger_than_its_disk_is_refused(tmp_path: Path, base: Path) -> None:
    image = image_ref(base, DiskFormat.QCOW2, 4 * MIB)
    with pytest.raises(InvalidRequest, match=r"4194304 bytes, more than the 1048576"):
        make(tmp_path, root_disk(image, MIB), base=base)


def test_a_blank_disk_takes_no_space(tmp_path: Path) -> None:
    make(tmp_path, GuestDisk(kind=DiskKind.DATA, device="vdb", size_bytes=1 << 40))
    found = info(tmp_path / "disk.vdb")
    assert found["virtual-size"] == 1 << 40
    assert found["actual-size"] < MIB


def test_ephemeral_and_swap_disks_come_formatted(tmp_path: Path) -> None:
    kinds = [(DiskKind.EPHEMERAL, "vdb"), (DiskKind.EPHEMERAL, "vdc"), (DiskKind.SWAP, "vdd")]
    make(tmp_path, *(GuestDisk(kind=kind, device=device, size_bytes=16 * MIB) for kind, device in kinds))
    found = {name: blkid(tmp_path / name) for name in ("disk.eph0", "disk.eph1", "disk.swap")}
    assert found == {"disk.eph0": "ephemeral0 ext4", "disk.eph1": "ephemeral1 ext4", "disk.swap": "swap"}


def test_only_their_owner_may_read_disks(tmp_path: Path) -> None:
    make(tmp_path, root_disk(size_bytes=MIB), GuestDisk(kind=DiskKind.SWAP, device="vdb", size_bytes=MIB))
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_what_a_tool_says_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RescheduleError, match=r"mkswap failed: .*"):
        make(tmp_path, GuestDisk(kind=DiskKind.SWAP, device="vdb", size_bytes=512))


def test_a_directory_that_is_gone_is_the_hosts_fault(tmp_path: Path) -> None:
    with pytest.raises(RescheduleError, match=r"cannot make disk\.swap"):
        make(tmp_path / "gone", GuestDisk(kind=DiskKind.SWAP, device="vdb", size_bytes=MIB))


def test_knows_a_file_system_without_direct_io() -> None:
    assert not supports_direct_io(Path("/proc/self/status"))
