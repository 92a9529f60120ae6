"""Volumes in files, served by real qemu-nbd processes on the loopback address."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from drivers.volume import convert
from drivers.volume.local import GIB, LocalVolumes
from hostler.contract.errors import InvalidRequest, NotFound, RescheduleError
from hostler.contract.guests import ImageRef, VolumeConnection, VolumeSpec
from hostler.contract.resources import DiskFormat
from tests.drivers.observing import names, until

LOOPBACK = "127.0.0.1"
MIB = 1 << 20
PORTS = range(20810, 20830)


def ignore(text: str) -> None:
    """Nobody who follows the progress."""


def spec(size_gib: int = 1, image: ImageRef | None = None) -> VolumeSpec:
    return VolumeSpec(volume_id=str(uuid4()), size_gib=size_gib, image=image)


def qemu_io(connection: VolumeConnection, command: str) -> str:
    """What qemu-io, as a guest would reach the volume, says to a command."""
    address = f"nbd://{connection.host}:{connection.port}/{connection.export}"
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", command, address], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def server_of(connection: VolumeConnection) -> psutil.Process:
    """The process that serves it."""
    [server] = serving(connection)
    return server


def serving(connection: VolumeConnection) -> list[psutil.Process]:
    """The processes that do: one, or none."""
    export = f"--export-name={connection.export}"
    return [p for p in psutil.process_iter(["cmdline"]) if export in (p.info["cmdline"] or [])]


def kill(connection: VolumeConnection) -> None:
    """SIGKILL; returns when it has ended."""
    server = server_of(connection)
    server.kill()
    server.wait()


def servers_in(directory: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(p.info["cmdline"] or [])]


def accepts(connection: VolumeConnection) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((connection.host, connection.port)) == 0


def leave_part(directory: Path, volume_id: str) -> None:
    """What a worker that is killed during a conversion leaves."""
    directory.mkdir()
    (directory / f".{volume_id}.0123.part").touch()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


@pytest.fixture
async def volumes(directory: Path) -> AsyncIterator[LocalVolumes]:
    volumes = LocalVolumes(directory, LOOPBACK, PORTS)
    yield volumes
    for volume_id in await volumes.volumes():
        await volumes.delete(volume_id)
    await volumes.close()
    assert servers_in(directory) == []


@pytest.fixture
def image(tmp_path: Path) -> tuple[ImageRef, Path]:
    """A qcow2 image of 8 MiB whose second MiB is full of 0xAB."""
    file = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "8M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -q -P 0xab 1M 1M", file], check=True)
    ref = ImageRef(
        id=str(uuid4()),
        disk_format=DiskFormat.QCOW2,
        size_bytes=file.stat().st_size,
        virtual_size_bytes=8 * MIB,
        checksum="",
    )
    return ref, file


class TestCreate:
    async def test_a_blank_volume_takes_no_room_until_it_is_written(
        self, volumes: LocalVolumes, directory: Path
    ) -> None:
        volume = spec(3)
        await volumes.create(volume, None, ignore)
        status = (directory / f"{volume.volume_id}.raw").stat()
        assert status.st_size == 3 * GIB
        assert status.st_blocks == 0
        assert await volumes.volumes() == [volume.volume_id]

    async def test_a_volume_from_an_image_has_its_content_and_its_own_size(
        self, volumes: LocalVolumes, directory: Path, image: tuple[ImageRef, Path]
    ) -> None:
        reports: list[str] = []
        volume = spec(1, image[0])
        await volumes.create(volume, image[1], reports.append)
        file = directory / f"{volume.volume_id}.raw"
        with file.open("rb") as content:
            assert content.read(3 * MIB) == bytes(MIB) + b"\xab" * MIB + bytes(MIB)
        assert file.stat().st_size == GIB
        assert file.stat().st_blocks * 512 < 2 * MIB
        assert reports[-1] == "100 % converted"
        assert names(directory) == [file.name]

    async def test_again_changes_nothing(self, volumes: LocalVolumes) -> None:
        volume = spec()
        await volumes.create(volume, None, ignore)
        connection = await volumes.export(volume.volume_id)
        qemu_io(connection, "write -P 0x17 0 4096")
        await volumes.create(volume, None, ignore)
        qemu_io(connection, "read -P 0x17 0 4096")

    async def test_what_a_killed_worker_left_is_replaced(self, volumes: LocalVolumes, directory: Path) -> None:
        volume = spec()
        leave_part(directory, volume.volume_id)
        await volumes.create(volume, None, ignore)
        assert names(directory) == [f"{volume.volume_id}.raw"]

    async def test_an_image_larger_than_the_volume(self, volumes: LocalVolumes, image: tuple[ImageRef, Path]) -> None:
        large = image[0].model_copy(update={"virtual_size_bytes": GIB + 1})
        with pytest.raises(InvalidRequest) as caught:
            await volumes.create(spec(1, large), image[1], ignore)
        assert "2 GiB" in str(caught.value.remedy)

    async def test_room_that_others_were_promised_is_not_given_twice(
        self, volumes: LocalVolumes, tmp_path: Path
    ) -> None:
        half = shutil.disk_usage(tmp_path).free // GIB * 2 // 3
        await volumes.create(spec(half), None, ignore)
        with pytest.raises(RescheduleError, match="no room"):
            await volumes.create(spec(half), None, ignore)
        assert len(await volumes.volumes()) == 1

    async def test_an_image_that_cannot_be_converted_leaves_nothing(
        self, volumes: LocalVolumes, directory: Path, image: tuple[ImageRef, Path]
    ) -> None:
        image[1].write_bytes(b"no qcow2")
        with pytest.raises(RescheduleError, match="qemu-img could not convert"):
            await volumes.create(spec(1, image[0]), image[1], ignore)
        assert names(directory) == []

    async def test_a_cancelled_one_kills_its_converter_and_leaves_nothing(
        self,
        volumes: LocalVolumes,
        directory: Path,
        image: tuple[ImageRef, Path],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        slow = tmp_path / "bin" / "qemu-img"
        slow.parent.mkdir()
        slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
        slow.chmod(0o755)
        monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        creation = asyncio.create_task(volumes.create(spec(1, image[0]), image[1], ignore))
        await until(lambda: Path(tmp_path, "started").exists())
        creation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creation
        assert names(directory) == []
        assert psutil.Process().children() == []

    async def test_missing_tools_are_named(
        self, image: tuple[ImageRef, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(RescheduleError, match="is not installed"):
            await convert.to_raw(image[1], DiskFormat.QCOW2, tmp_path / "target", ignore)

    async def test_an_id_is_never_a_path(self, volumes: LocalVolumes) -> None:
        with pytest.raises(InvalidRequest):
            await volumes.create(VolumeSpec(volume_id="../evil", size_gib=1), None, ignore)
        with pytest.raises(InvalidRequest):
            await volumes.withdraw("../evil")


@pytest.fixture
async def volume(volumes: LocalVolumes) -> str:
    """A volume that exists."""
    volume = spec()
    await volumes.create(volume, None, ignore)
    return volume.volume_id


class TestExport:
    async def test_a_guest_writes_and_reads(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        assert connection.host == LOOPBACK
        qemu_io(connection, "write -P 0x42 512M 1M")
        qemu_io(connection, "read -P 0x42 512M 1M")
        assert await volumes.exports() == [volume]

    async def test_several_guests_at_once_as_a_live_migration_needs(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        with socket.create_connection((connection.host, connection.port)) as other:
            assert other.recv(8) == b"NBDMAGIC"
            qemu_io(connection, "read 0 512")

    async def test_again_gives_the_same_answer(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        server = server_of(connection)
        assert await volumes.export(volume) == connection
        assert server_of(connection) == server

    async def test_it_survives_the_worker(self, volumes: LocalVolumes, directory: Path, volume: str) -> None:
        connection = await volumes.export(volume)
        qemu_io(connection, "write -P 0x42 0 512")
        server = server_of(connection)
        successor = LocalVolumes(directory, LOOPBACK, PORTS)
        assert await successor.export(volume) == connection
        assert server_of(connection) == server
        qemu_io(connection, "read -P 0x42 0 512")
        await successor.close()

    async def test_a_killed_server_is_started_again_on_its_port(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        qemu_io(connection, "write -P 0x42 0 512")
        kill(connection)
        assert await volumes.export(volume) == connection
        qemu_io(connection, "read -P 0x42 0 512")

    async def test_a_server_that_dies_is_started_again_by_itself(
        self, volumes: LocalVolumes, directory: Path, volume: str
    ) -> None:
        connection = await volumes.export(volume)
        qemu_io(connection, "write -P 0x42 0 512")
        for _ in range(2):
            kill(connection)
            await until(lambda: accepts(connection) and len(serving(connection)) == 1)  # it forks
        await until(lambda: accepts(connection))
        qemu_io(connection, "read -P 0x42 0 512")

    async def test_a_withdrawn_export_is_not_started_again(
        self, volumes: LocalVolumes, directory: Path, volume: str
    ) -> None:
        await volumes.export(volume)
        await volumes.withdraw(volume)
        assert servers_in(directory) == []

    async def test_after_a_reboot_all_are_served_again(self, volumes: LocalVolumes, directory: Path) -> None:
        served, withdrawn, living = spec(), spec(), spec()
        before = LocalVolumes(directory, LOOPBACK, PORTS)
        for volume in (served, withdrawn, living):
            await before.create(volume, None, ignore)
        connection = await before.export(served.volume_id)
        await before.export(living.volume_id)
        await before.export(withdrawn.volume_id)
        await before.withdraw(withdrawn.volume_id)
        await before.close()
        kill(connection)
        assert await volumes.restart_exports() == [served.volume_id]
        qemu_io(connection, "read 0 512")
        assert await volumes.exports() == sorted([served.volume_id, living.volume_id])

    async def test_a_worker_killed_before_it_recorded_the_port_finds_the_server(
        self, volumes: LocalVolumes, directory: Path, volume: str
    ) -> None:
        connection = await volumes.export(volume)
        (directory / "exports" / f"volume-{volume}.json").unlink()
        assert await volumes.export(volume) == connection
        assert await volumes.exports() == [volume]

    async def test_the_port_of_a_dead_server_stays_its_own(self, volumes: LocalVolumes) -> None:
        first, second = spec(), spec()
        for volume in (first, second):
            await volumes.create(volume, None, ignore)
        connection = await volumes.export(first.volume_id)
        kill(connection)
        assert (await volumes.export(second.volume_id)).port != connection.port
        assert await volumes.export(first.volume_id) == connection

    async def test_a_taken_port_is_passed_over(self, volumes: LocalVolumes, volume: str) -> None:
        with socket.create_server((LOOPBACK, PORTS[0])):
            assert (await volumes.export(volume)).port == PORTS[1]

    async def test_many_at_once_get_a_port_each(self, volumes: LocalVolumes) -> None:
        some = [spec() for _ in range(6)]
        await asyncio.gather(*(volumes.create(volume, None, ignore) for volume in some))
        connections = await asyncio.gather(*(volumes.export(volume.volume_id) for volume in some))
        assert len({connection.port for connection in connections}) == len(some)

    async def test_no_port_left(self, directory: Path, volumes: LocalVolumes, volume: str) -> None:
        narrow = LocalVolumes(directory, LOOPBACK, PORTS[:1])
        with socket.create_server((LOOPBACK, PORTS[0])), pytest.raises(RescheduleError, match="are taken"):
            await narrow.export(volume)
        await narrow.close()

    async def test_no_qemu_nbd(self, volumes: LocalVolumes, volume: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("PATH", "/nowhere")
            with pytest.raises(RescheduleError, match="qemu-nbd is not installed") as caught:
                await volumes.export(volume)
        assert "qemu-utils" in str(caught.value.remedy)

    async def test_an_address_that_is_not_this_hosts(self, directory: Path, volumes: LocalVolumes, volume: str) -> None:
        elsewhere = LocalVolumes(directory, "127.0.0.1.invalid", PORTS)
        with pytest.raises(RescheduleError, match="does not start"):
            await elsewhere.export(volume)
        await elsewhere.close()

    async def test_an_unknown_volume(self, volumes: LocalVolumes) -> None:
        with pytest.raises(NotFound):
            await volumes.export(str(uuid4()))

    async def test_a_file_system_without_direct_io(
        self, volumes: LocalVolumes, volume: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A stand-in says what qemu says there, since all file systems of today's kernels have it."""
        picky = tmp_path / "bin" / "qemu-nbd"
        picky.parent.mkdir()
        picky.write_text(
            "#!/bin/bash\n[[ $* != *--cache=none* ]] || "
            "{ echo 'file system may not support O_DIRECT' >&2; exit 1; }\n"
            f'exec -a qemu-nbd {shutil.which("qemu-nbd")} "$@"\n'
        )
        picky.chmod(0o755)
        monkeypatch.setenv("PATH", f"{picky.parent}:{os.environ['PATH']}")
        connection = await volumes.export(volume)
        qemu_io(connection, "read 0 512")
        assert "--cache=writeback" in server_of(connection).cmdline()


class TestWithdraw:
    async def test_may_be_repeated_and_data_stays(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        qemu_io(connection, "write -P 0x42 0 512")
        await volumes.withdraw(volume)
        await volumes.withdraw(volume)
        assert await volumes.exports() == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((connection.host, connection.port))
        qemu_io(await volumes.export(volume), "read -P 0x42 0 512")

    async def test_while_a_guest_is_connected(self, volumes: LocalVolumes, volume: str) -> None:
        connection = await volumes.export(volume)
        with socket.create_connection((connection.host, connection.port)) as guest:
            guest.recv(8)
            await volumes.withdraw(volume)
        assert await volumes.exports() == []

    async def test_a_recycled_pid_is_never_killed(self, volumes: LocalVolumes, directory: Path, volume: str) -> None:
        connection = await volumes.export(volume)
        kill(connection)
        innocent = await asyncio.create_subprocess_exec("sleep", "60")
        (directory / "exports" / f"volume-{volume}.pid").write_text(f"{innocent.pid}\n")
        await volumes.withdraw(volume)
        assert innocent.returncode is None
        assert psutil.pid_exists(innocent.pid)
        innocent.kill()
        await innocent.wait()


class TestDelete:
    async def test_takes_data_and_server_and_may_be_repeated(
        self, volumes: LocalVolumes, directory: Path, volume: str
    ) -> None:
        await volumes.export(volume)
        await volumes.delete(volume)
        await volumes.delete(volume)
        assert names(directory) == ["exports"]
        assert names(directory / "exports") == []
        assert servers_in(directory) == []

    async def test_takes_what_a_killed_worker_left(self, volumes: LocalVolumes, directory: Path) -> None:
        volume_id = str(uuid4())
        leave_part(directory, volume_id)
        await volumes.delete(volume_id)
        assert names(directory) == []
