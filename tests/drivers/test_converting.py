"""`qemu-img convert`, as drivers run it."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from drivers.converting import convert, flatten, patience
from hostler.contract.errors import RescheduleError
from tests.conftest import free_port
from tests.drivers.observing import until

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 image of 8 MiB."""
    file = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "8M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -q -P 0xab 0 8M", file], check=True)
    return file


def ignore(_: int) -> None:
    """Nobody who follows the progress."""


def converters(file: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if file in (p.info["cmdline"] or [])]


async def test_each_percent_is_told_once_and_nothing_is_complained_of(image: Path, tmp_path: Path) -> None:
    told: list[int] = []
    complaint = await convert("-O", "raw", str(image), str(tmp_path / "target"), progress=told.append)
    assert complaint == ""
    assert (told[0], told[-1]) == (0, 100)
    assert sorted(set(told)) == told
    assert content(tmp_path / "target") == b"\xab" * 8 * MIB


async def test_what_qemu_img_complains_of_is_the_answer(tmp_path: Path) -> None:
    complaint = await convert("-O", "raw", str(tmp_path / "none"), str(tmp_path / "target"), progress=ignore)
    assert complaint.startswith("Could not open")
    assert "No such file" in complaint


async def test_without_qemu_img_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    for package in ("util-linux", "qemu-utils"):
        with pytest.raises(RescheduleError) as caught:
            await convert(progress=ignore)
        assert package in str(caught.value.remedy)
        (tmp_path / "setpriv").unlink(missing_ok=True)
        (tmp_path / "setpriv").symlink_to(setpriv)


async def test_a_cancelled_one_is_killed(tmp_path: Path) -> None:
    async with silent_server() as source:
        task = asyncio.create_task(convert("-O", "raw", source, str(tmp_path / "target"), progress=ignore))
        await until(lambda: bool(converters(source)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert converters(source) == []


async def test_one_that_makes_no_progress_is_killed(tmp_path: Path) -> None:
    async with silent_server() as source:
        silence = timedelta(seconds=0.3)
        complaint = await convert("-O", "raw", source, str(tmp_path / "target"), progress=ignore, silence=silence)
        assert complaint == "no progress within 0:00:00.300000"
        assert converters(source) == []


async def test_what_is_flattened_needs_no_other_file(image: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-b", image, "-F", "qcow2", overlay], check=True)  # noqa: ASYNC221, it takes no time
    told: list[int] = []
    assert await flatten(overlay, 8 * MIB, told.append) == ""
    assert told[-1] == 100
    image.unlink()  # noqa: ASYNC240
    assert await convert("-O", "raw", str(overlay), str(tmp_path / "target"), progress=ignore) == ""
    assert content(tmp_path / "target") == b"\xab" * 8 * MIB


def test_a_large_disk_is_given_the_time_that_a_percent_of_it_takes_on_slow_storage() -> None:
    assert patience(20 << 30) == timedelta(minutes=10)
    assert patience(4 << 40) > timedelta(hours=2)


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """The address of an image whose server never answers."""
    port = free_port()
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    yield f"nbd://127.0.0.1:{port}/none"
    server.close()


def content(file: Path) -> bytes:
    return file.read_bytes()
