"""Image files to test with, made by qemu-img."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MIB = 1 << 20
MakeImage = Callable[..., Path]


def qemu_img(*arguments: str | Path) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw disk of 2 MiB that nothing can compress, and 2 MiB of zeros."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(2 * MIB) + bytes(2 * MIB))
    return path


@pytest.fixture
def convert(raw: Path, tmp_path: Path) -> MakeImage:
    """Makes an image of the raw disk in another format."""

    def make(format_name: str, *options: str) -> Path:
        target = tmp_path / f"disk.{format_name}"
        qemu_img("convert", "-f", "raw", "-O", format_name, *options, raw, target)
        return target

    return make
