"""The config drive of a guest that moves while it runs, from one file into another."""

import base64
import os
import zlib
from pathlib import Path

import pytest

from drivers.hypervisor.libvirt.carried_drive import MOST_BYTES, MOST_TEXT, pack, unpack
from drivers.hypervisor.libvirt.config_drive import write_config_drive
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import GuestDescription
from tests.drivers.hypervisor.libvirt.guests import guest, port

MOST_USER_DATA = 48 << 10


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """As large as they become: user data that cannot be compressed, many metadata and ports."""
    file = tmp_path / "disk.config"
    user_data = base64.b64encode(os.urandom(MOST_USER_DATA)).decode()
    metadata = {f"{number:0255}": os.urandom(127).hex() for number in range(128)}
    write_config_drive(guest(ports=[port()] * 8, user_data=user_data, metadata=metadata), file)
    return file


def test_it_arrives_byte_for_byte_and_nobody_else_can_read_it(drive: Path, tmp_path: Path) -> None:
    text = pack(drive)
    assert text is not None
    unpack(text, tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == drive.read_bytes()
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o600


def test_the_largest_leaves_temporal_s_limit_far_away(drive: Path) -> None:
    assert len(pack(drive) or "") < MOST_TEXT < 1 << 20


def test_a_guest_may_have_none(tmp_path: Path) -> None:
    assert pack(tmp_path / "disk.config") is None


@pytest.mark.parametrize("content", [bytes(MOST_BYTES + 1), os.urandom(MOST_TEXT)], ids=["long", "dense"])
def test_one_that_is_too_large_is_left_to_the_next_host(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "disk.config"
    file.write_bytes(content)
    assert pack(file) is None
    assert "too large to be carried" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        *("", "not base64!", "é", base64.b64encode(b"no zlib").decode()),
        base64.b64encode(zlib.compress(b"x" * 100)[:-5]).decode(),
        base64.b64encode(zlib.compress(bytes(MOST_BYTES + 1))).decode(),
    ],
)
def test_what_is_no_drive_or_swells_beyond_measure_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RescheduleError, match="cannot be taken over") as refusal:
        unpack(text, tmp_path / "there")
    assert (refusal.value.detail.field, refusal.value.detail.value) == ("config_drive", None)
    assert refusal.value.remedy
    assert not (tmp_path / "there").exists()


def test_a_disk_that_is_full_or_gone(tmp_path: Path) -> None:
    with pytest.raises(RescheduleError, match="cannot write the config drive"):
        unpack(base64.b64encode(zlib.compress(b"")).decode(), tmp_path / "gone" / "disk.config")


def test_it_is_not_printed() -> None:
    described = GuestDescription(server_id="s", live="", persistent="", virt_type="qemu", config_drive="c2VjcmV0")
    assert "c2VjcmV0" not in f"{described!r} {described}"
