"""A host's disk is full, at whatever step: another host is taken, or the fault says so; and nothing is left."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hostler.contract.errors import BuildFailed, HostlerError, NoValidHost
from hostler.contract.servers import BlockDeviceMapping
from tests.cloud import Cloud
from tests.workflows.conftest import StartCloud

PAGE = 4096
"""What each small file takes of a tmpfs."""


@contextmanager
def small_disk(directory: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own for the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path, *, leave_bytes: int) -> None:
    """Use up all of the directory's disk but so much."""
    status = os.statvfs(directory)
    (directory / "filler").write_bytes(bytes(status.f_bavail * status.f_bsize - leave_bytes))


@pytest.fixture
def disks() -> Iterator[ExitStack]:
    """Small disks that are gone after the test, and after its cloud."""
    with ExitStack() as disks:
        yield disks


@pytest.mark.parametrize(
    ("files", "step"), [(0, "claim_resources"), (1, "bind_ports"), (2, "spawn")], ids=["claim", "ports", "spawn"]
)
async def test_a_build_leaves_a_host_whose_disk_is_full(
    disks: ExitStack, start_cloud: StartCloud, tmp_path: Path, files: int, step: str
) -> None:
    directory = tmp_path / "simulated" / "sim-1"
    disks.enter_context(small_disk(directory, 64 * PAGE))
    cloud = await start_cloud()
    before = await cloud.world()
    fill(directory, leave_bytes=files * PAGE)

    server = await cloud.booted()

    assert server.host == "sim-2"
    events = await cloud.client.servers.events(server.id)
    [failed] = [event.step for event in events if event.step.error]
    assert (failed.name, failed.host) == (step, "sim-1")
    assert "No space left on device" in (failed.error or "")
    assert (await cloud.world()).claims == {("sim-2", server.id)}
    await cloud.deleted(server.id)
    assert await cloud.world() == before
    await _comes_back(cloud, "sim-1")


async def _comes_back(cloud: Cloud, host: str) -> None:
    """What the full disk left half-written does not keep the worker from its next start."""
    await cloud.stop_host(host)
    await cloud.start_host(host)


async def test_a_build_says_that_no_host_has_room_for_the_image(
    disks: ExitStack, start_cloud: StartCloud, tmp_path: Path
) -> None:
    disks.enter_context(small_disk(tmp_path / "simulated" / "cache", 16 * PAGE))
    cloud = await start_cloud()
    before = await cloud.world()

    boot = await cloud.boot()
    error = await cloud.failure(boot)

    assert isinstance(error, BuildFailed | NoValidHost)
    assert [attempt.step for attempt in error.detail.attempts] == ["fetch_image", "fetch_image"]
    assert all("no room in" in attempt.reason for attempt in error.detail.attempts)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)


async def test_a_volume_is_refused_where_there_is_no_room_for_it(
    disks: ExitStack, start_cloud: StartCloud, tmp_path: Path
) -> None:
    disks.enter_context(small_disk(tmp_path / "volumes", 8 * 2**20))
    cloud = await start_cloud(volumes=True)
    before = await cloud.world()

    with pytest.raises(HostlerError, match="no room in"):
        await cloud.client.volumes.create(size_gib=1)

    assert await cloud.world() == before


async def test_a_boot_whose_volume_finds_no_room_says_so(
    disks: ExitStack, start_cloud: StartCloud, tmp_path: Path
) -> None:
    disks.enter_context(small_disk(tmp_path / "volumes", 8 * 2**20))
    cloud = await start_cloud(volumes=True)
    before = await cloud.world()
    data = BlockDeviceMapping(source_type="blank", destination_type="volume", volume_size=1)

    boot = await cloud.boot(block_devices=[data])
    error = await cloud.failure(boot)

    assert "no room in" in str(error)
    assert (await cloud.world()).besides(boot.server_id) == before.besides(boot.server_id)
