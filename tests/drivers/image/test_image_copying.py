"""An image's bytes are taken in once: written, counted, hashed and on the disk as they go."""

import hashlib
import os
from pathlib import Path

import pytest

from drivers.image import copying

PIECES = [b"a" * copying.PIECE_BYTES, bytes(copying.PIECE_BYTES), b"end"]


def test_what_is_written_is_what_came_and_zeros_take_no_room(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.touch()
    digest = copying.write_out(PIECES, target, 0, lambda done, total: None)
    whole = b"".join(PIECES)
    assert (digest.size_bytes, digest.checksum) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert target.read_bytes() == whole
    assert target.stat().st_blocks * 512 < len(whole)


def test_it_is_forced_to_the_disk_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, told = tmp_path / "image", []
    target.touch()
    fdatasync = os.fdatasync

    def sync(handle: int) -> None:
        fdatasync(handle)
        told.append(f"{os.fstat(handle).st_size} on the disk")

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(copying, "PIECES_PER_SYNC", 2)
    copying.write_out([b"aa", b"bb", b"c"], target, 5, lambda done, total: told.append(f"{done} of {total}"))
    assert told == ["2 of 5", "4 on the disk", "4 of 5", "5 of 5"]
