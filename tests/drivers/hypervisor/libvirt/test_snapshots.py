"""Snapshots of guests that run, are paused or are off: they stand alone, boot, and disturb nobody."""

import asyncio
import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor, agent
from drivers.hypervisor.libvirt.boot_sector import DISK_BYTES
from drivers.image.inspection import inspect
from hostler.contract.errors import InvalidState, NotFound, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import DiskFormat
from hostler.contract.states import PowerState
from tests.drivers.hypervisor.libvirt.guests import (
    MIB,
    SYSTEM_SECONDS,
    console,
    domain_of,
    greeted,
    guest,
    holds,
    ignore,
    image_info,
    image_ref,
    root_disk,
    write,
)
from tests.drivers.observing import names

pytestmark = pytest.mark.real

MARKED = (0x5A, 2 * MIB, 65536)
SIZE = 8 * MIB
LARGE = 768 * MIB
AT_ONCE = timedelta(0)
NO_JOB = libvirt.VIR_DOMAIN_JOB_NONE
DEMO_BYTES = 33 * MIB
DEMO_DATA = (25 * MIB, 8 * MIB)
"""Where on the demo guest's disk its data partition begins, and how large that is."""
WRITER = rb"""#!/bin/sh
printf '#!/bin/sh\nkillall -STOP agent && echo stopped >/dev/console\n' >/etc/acpi/PWRF/00000080
number=0
while sleep 0.1; do
    number=$((number + 1))
    echo $number >>/data/numbers
    [ $((number % 5)) != 0 ] || echo "wrote $number"
done
"""
"""Counts in a file, which it does not flush, and says so on the console. The power button makes the agent hang."""


@pytest.fixture
def target(state_dir: Path) -> Path:
    """Where a snapshot goes: in a directory that QEMU gets through."""
    directory = state_dir / "incoming"
    directory.mkdir(mode=0o711)
    return directory / "snapshot"


@pytest.fixture
def spec(tiny_image: Path) -> GuestSpec:
    """A guest that greets and halts, with a root disk larger than its image, an ephemeral one and a config drive."""
    ephemeral = GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=8 * MIB)
    root = root_disk(image_ref(tiny_image, DiskFormat.RAW, DISK_BYTES), SIZE)
    return guest(root, ephemeral, config_drive=True)


@pytest.fixture
async def off(hypervisor: LibvirtHypervisor, spec: GuestSpec, tiny_image: Path, state_dir: Path) -> GuestSpec:
    """The guest, off, with something on its disk that is not in its image."""
    await hypervisor.spawn(spec, tiny_image, ignore)
    await hypervisor.stop(spec.server_id, AT_ONCE, ignore)
    write(state_dir / "guests" / spec.server_id / "disk", *MARKED)
    return spec


@pytest.fixture
async def large(hypervisor: LibvirtHypervisor, state_dir: Path) -> GuestSpec:
    """A guest, running, whose disk holds so much that a copy takes a while."""
    spec = guest(root_disk(size_bytes=LARGE))
    await hypervisor.spawn(spec, None, ignore)
    await hypervisor.stop(spec.server_id, AT_ONCE, ignore)
    write(state_dir / "guests" / spec.server_id / "disk", 0x17, 0, LARGE)
    await hypervisor.start(spec.server_id)
    return spec


@pytest.fixture
def small_disk(state_dir: Path) -> Iterator[Path]:
    """A directory with room for 4 MiB."""
    directory = state_dir / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=711", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def status_of(target: Path) -> os.stat_result:
    return target.stat()


def leave(target: Path) -> None:
    """What an earlier try left."""
    target.write_text("half a snapshot")


def open_to_all(image: Path) -> None:
    """As the image store does."""
    image.chmod(0o644)


async def boots(hypervisor: LibvirtHypervisor, image: Path) -> None:
    """Make a guest of the image, and wait until it has greeted."""
    open_to_all(image)
    spec = guest(root_disk(image_ref(image, DiskFormat.QCOW2, SIZE)))
    await hypervisor.spawn(spec, image, ignore)
    await hypervisor.resume(spec.server_id)
    await greeted(hypervisor, spec)


async def begun(hypervisor: LibvirtHypervisor, spec: GuestSpec, target: Path) -> "asyncio.Task[DiskFormat]":
    """A snapshot that copies."""
    copies = asyncio.Event()
    task = asyncio.create_task(
        hypervisor.snapshot(spec.server_id, target, False, lambda said: copies.set() if "MiB" in said else None)
    )
    waiting = asyncio.create_task(copies.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not task.done(), "it was too fast for this test"
    return task


@pytest.mark.parametrize("state", [PowerState.RUNNING, PowerState.PAUSED, PowerState.SHUTDOWN])
async def test_a_snapshot_stands_alone_and_boots_and_the_guest_goes_on(
    hypervisor: LibvirtHypervisor, off: GuestSpec, target: Path, state: PowerState
) -> None:
    if state is not PowerState.SHUTDOWN:
        await hypervisor.start(off.server_id)
    if state is PowerState.PAUSED:
        domain_of(off).suspend()
    leave(target)
    reports: list[str] = []
    assert await hypervisor.snapshot(off.server_id, target, False, reports.append) is DiskFormat.QCOW2
    assert await hypervisor.power_state(off.server_id) is state
    assert "backing-filename" not in image_info(target)
    assert inspect(target, DiskFormat.QCOW2, "snapshot") == SIZE
    assert holds(target, *MARKED)
    status = status_of(target)
    assert status.st_size < 2 * MIB, "its holes take no room"
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, os.geteuid())
    assert reports
    await hypervisor.destroy(off.server_id)
    await boots(hypervisor, target)


async def test_how_far_it_is_is_told(hypervisor: LibvirtHypervisor, large: GuestSpec, target: Path) -> None:
    reports: list[str] = []
    task = await begun(hypervisor, large, target)
    task.cancel()
    await asyncio.wait([task])
    await hypervisor.stop(large.server_id, AT_ONCE, ignore)
    await hypervisor.snapshot(large.server_id, target, False, reports.append)
    assert all(said.startswith("snapshot: ") for said in reports)
    assert f"snapshot: 0 % of {LARGE // MIB} MiB" in reports


async def test_what_the_guest_writes_meanwhile_is_not_in_it(
    hypervisor: LibvirtHypervisor, large: GuestSpec, target: Path
) -> None:
    task = await begun(hypervisor, large, target)
    last = LARGE - 65536
    command = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0x99 {last} 65536"'
    monitor(large, command)
    await task
    assert holds(target, 0x17, last, 65536)
    assert "verification failed" not in monitor(large, command.replace("write", "read"))


@pytest.mark.parametrize("is_off", [False, True])
async def test_a_cancelled_snapshot_leaves_no_copy_no_file_and_the_guest_as_it_was(
    hypervisor: LibvirtHypervisor, large: GuestSpec, target: Path, is_off: bool
) -> None:
    if is_off:
        await hypervisor.stop(large.server_id, AT_ONCE, ignore)
    task = await begun(hypervisor, large, target)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(target.parent) == []
    if not is_off:
        assert domain_of(large).jobStats()["type"] == NO_JOB
        assert await hypervisor.power_state(large.server_id) is PowerState.RUNNING


async def test_a_copy_that_a_dead_worker_left_running_is_ended_first(
    hypervisor: LibvirtHypervisor, large: GuestSpec, target: Path
) -> None:
    left = target.with_name("left")
    domain_of(large).backupBegin(
        f"""<domainbackup mode='push'><disks><disk name='vda' backup='yes' type='file'>
        <driver type='qcow2'/><target file='{left}'/></disk></disks></domainbackup>""",
        None,
        0,
    )
    assert domain_of(large).jobStats()["type"] != NO_JOB
    await hypervisor.snapshot(large.server_id, target, False, ignore)
    assert holds(target, 0x17, LARGE - 65536, 65536)


@pytest.mark.parametrize("is_off", [False, True])
async def test_where_there_is_no_room_another_host_may_try(
    small_disk: Path, hypervisor: LibvirtHypervisor, large: GuestSpec, is_off: bool
) -> None:
    if is_off:
        await hypervisor.stop(large.server_id, AT_ONCE, ignore)
    with pytest.raises(RescheduleError, match="no room"):
        await hypervisor.snapshot(large.server_id, small_disk / "snapshot", False, ignore)
    assert names(small_disk) == []
    assert await hypervisor.power_state(large.server_id) is (PowerState.SHUTDOWN if is_off else PowerState.RUNNING)


@pytest.mark.parametrize("is_off", [False, True])
@pytest.mark.parametrize(("free", "beside", "fits"), [(3, True, False), (3, False, True), (5, True, True)])
async def test_there_must_be_room_for_what_the_image_beneath_has_too_and_for_the_stores_own_copy(
    hypervisor: LibvirtHypervisor,
    state_dir: Path,
    target: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    beside: bool,
    fits: bool,
    is_off: bool,
) -> None:
    base = state_dir / "base"
    base.write_bytes(b"\x5a" * 2 * MIB)
    open_to_all(base)
    spec = guest(root_disk(image_ref(base, DiskFormat.RAW, 2 * MIB), SIZE))
    await hypervisor.spawn(spec, base, ignore)
    if is_off:
        await hypervisor.stop(spec.server_id, AT_ONCE, ignore)
    where = target if beside else small_disk / "snapshot"
    usage = shutil.disk_usage(where.parent)._replace(free=free * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with nullcontext() if fits else pytest.raises(RescheduleError, match="no room"):
        await hypervisor.snapshot(spec.server_id, where, False, ignore)
    assert names(where.parent) == ([where.name] if fits else [])


async def test_a_guest_without_an_agent_cannot_be_quiesced(
    hypervisor: LibvirtHypervisor, off: GuestSpec, target: Path
) -> None:
    await hypervisor.start(off.server_id)
    with pytest.raises(InvalidState, match="no guest agent") as caught:
        await hypervisor.snapshot(off.server_id, target, True, ignore)
    assert "qemu-guest-agent" in str(caught.value.remedy)
    assert names(target.parent) == []
    await hypervisor.stop(off.server_id, AT_ONCE, ignore)
    await hypervisor.snapshot(off.server_id, target, True, ignore)
    assert holds(target, *MARKED), "what is off is at rest"


async def test_a_guest_with_an_agent_is_at_rest_in_the_image_and_is_never_left_frozen(
    hypervisor: LibvirtHypervisor,
    demo_image: Path,
    state_dir: Path,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user_data = base64.b64encode(WRITER).decode()
    root = root_disk(image_ref(demo_image, DiskFormat.QCOW2, DEMO_BYTES))
    ephemeral = GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=8 * MIB)
    spec = guest(root, ephemeral, ram_mib=96, config_drive=True, user_data=user_data)
    mark = state_dir / "guests" / spec.server_id / "freezing"
    await hypervisor.spawn(spec, demo_image, ignore)
    await hypervisor.resume(spec.server_id)
    await console(hypervisor, spec, lambda log: "login:" in log)
    await agent_answers(spec)
    written = await writes(hypervisor, spec)

    # What it has written is in the image, and nothing is in the middle of a write.
    await hypervisor.snapshot(spec.server_id, target, True, ignore)
    numbers = numbers_in(target, tmp_path)
    assert len(numbers) >= written
    assert numbers == list(range(1, len(numbers) + 1))
    await writes(hypervisor, spec, after=len(numbers))
    await frozen(hypervisor, spec, 1)
    assert not mark.exists()

    # A worker froze it and died.
    mark.write_text(str(domain_of(spec).ID()))
    assert domain_of(spec).fsFreeze() == len(["/data", "the ephemeral disk"])
    assert await hypervisor.restore() == {}
    assert not mark.exists()
    await writes(hypervisor, spec, after=await writes(hypervisor, spec))
    await frozen(hypervisor, spec, 2)

    # The agent is there, and hangs.
    monkeypatch.setattr(agent, "ANSWER_SECONDS", 1)
    domain_of(spec).shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    await console(hypervisor, spec, lambda log: "stopped" in log)
    with pytest.raises(InvalidState, match="the guest agent does not answer"):
        await hypervisor.snapshot(spec.server_id, target, True, ignore)
    assert names(target.parent) == []
    await hypervisor.snapshot(spec.server_id, target, False, ignore)
    assert inspect(target, DiskFormat.QCOW2, "snapshot") == DEMO_BYTES
    await writes(hypervisor, spec, after=await writes(hypervisor, spec))
    await frozen(hypervisor, spec, 2)
    assert not mark.exists()


async def writes(hypervisor: LibvirtHypervisor, spec: GuestSpec, after: int = 0) -> int:
    """The number that `WRITER` told last, once it is a later one than that."""
    return told(await console(hypervisor, spec, lambda log: told(log) > after))


def told(log: str) -> int:
    """The number that `WRITER` told last; 0 before it does."""
    found = re.findall(r"wrote (\d+)\s", log)
    return int(found[-1]) if found else 0


async def frozen(hypervisor: LibvirtHypervisor, spec: GuestSpec, times: int) -> None:
    """See that the guest's agent has frozen its file systems so often, and thawed them, as it tells afterwards."""
    log = await console(hypervisor, spec, lambda log: log.count("=== frozen from") >= times)
    assert log.count("=== frozen from") == times


async def agent_answers(spec: GuestSpec) -> None:
    """Wait until the guest's agent is there."""
    async with asyncio.timeout(SYSTEM_SECONDS):
        while "state='connected'" not in domain_of(spec).XMLDesc():  # noqa: ASYNC110, since nothing tells of it
            await asyncio.sleep(0.1)


def numbers_in(image: Path, directory: Path) -> list[int]:
    """What `WRITER` had written when the image was made, on a file system that needs no repair."""
    disk, data = directory / "disk", directory / "data"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, disk], check=True)
    start, size = DEMO_DATA
    data.write_bytes(disk.read_bytes()[start : start + size])
    checked = subprocess.run(["e2fsck", "-fn", data], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    numbers = subprocess.run(["debugfs", "-R", "cat /numbers", data], check=True, capture_output=True).stdout
    return [int(number) for number in numbers.split()]


async def test_who_has_no_guest_has_no_snapshot(hypervisor: LibvirtHypervisor, target: Path) -> None:
    with pytest.raises(NotFound):
        await hypervisor.snapshot(str(uuid4()), target, False, ignore)


def monitor(spec: GuestSpec, command: str) -> str:
    """What QEMU says to a command for people."""
    domain = f"hostler-{spec.server_id}"
    done = subprocess.run(["virsh", "qemu-monitor-command", domain, "--hmp", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout, done.stdout
    return done.stdout


async def test_a_worker_that_starts_sees_to_file_systems_that_another_left_frozen(
    hypervisor: LibvirtHypervisor, off: GuestSpec, state_dir: Path
) -> None:
    mark = state_dir / "guests" / off.server_id / "freezing"
    await hypervisor.start(off.server_id)
    mark.write_text(str(domain_of(off).ID()))

    hanging = await hypervisor.restore()
    assert "may be frozen" in hanging[off.server_id], "no agent runs in it"
    assert mark.exists()

    await hypervisor.reset(off.server_id)
    assert await hypervisor.restore() == {}
    assert not mark.exists()
