"""The libvirt driver with real guests: most are a boot sector that greets and halts, one is a whole system."""

import asyncio
import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from drivers.hypervisor.base import HypervisorDriver
from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import DISK_BYTES, GREETING
from hostler.contract.errors import NotFound, RescheduleError, Unavailable
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, VolumeConnection
from hostler.contract.names import bridge_name, tap_name
from hostler.contract.resources import DiskFormat
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import MIB, console, domain_of, guest, ignore, image_ref, port, root_disk

pytestmark = pytest.mark.real

GREETED = GREETING.decode().strip()
AT_ONCE = timedelta(0)
FOREVER = timedelta(minutes=1)


@pytest.fixture
def bridge() -> Iterator[str]:
    """The bridge of a network; yields the network's ID."""
    network_id = str(uuid4())
    subprocess.run(["ip", "link", "add", bridge_name(network_id), "type", "bridge"], check=True)
    yield network_id
    subprocess.run(["ip", "link", "delete", bridge_name(network_id)], check=True)


@pytest.fixture
def volume(tiny_image: Path) -> Iterator[VolumeConnection]:
    """A volume that holds the tiny image, served over NBD."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    address = ["--bind", "127.0.0.1", "--port", str(number), "--export-name", "vol"]
    server = subprocess.Popen(["qemu-nbd", "--persistent", "--snapshot", "-f", "raw", *address, tiny_image])
    while not psutil.Process(server.pid).net_connections():
        time.sleep(0.02)
    yield VolumeConnection(volume_id=str(uuid4()), host="127.0.0.1", port=number, export="vol")
    server.terminate()
    server.wait()


def guest_dir(state_dir: Path, spec: GuestSpec) -> Path:
    return state_dir / "guests" / spec.server_id


def plugged(network_id: str) -> list[tuple[str, int]]:
    """The taps in a network's bridge, with their MTU."""
    command = ["ip", "-j", "link", "show", "master", bridge_name(network_id)]
    shown = subprocess.run(command, capture_output=True, check=True)
    return [(link["ifname"], link["mtu"]) for link in json.loads(shown.stdout)]


async def test_a_guest_starts_paused_and_runs_when_it_is_let(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    steps: list[str] = []
    await hypervisor.spawn(tiny, tiny_image, steps.append)
    assert steps == ["making the disks", "defining the domain", "starting QEMU"]
    assert await hypervisor.power_state(tiny.server_id) is PowerState.PAUSED
    assert await hypervisor.console_log(tiny.server_id, MIB) == ""

    await hypervisor.resume(tiny.server_id)
    assert await hypervisor.power_state(tiny.server_id) is PowerState.RUNNING
    await console(hypervisor, tiny, lambda log: GREETED in log)
    assert await hypervisor.console_log(tiny.server_id, len("here\n")) == "here\n"


async def test_spawning_and_resuming_again_changes_nothing(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    first = domain_of(tiny).ID()
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    await hypervisor.resume(tiny.server_id)
    await hypervisor.spawn(tiny, tiny_image, ignore)
    assert domain_of(tiny).ID() == first
    assert await hypervisor.power_state(tiny.server_id) is PowerState.RUNNING


async def test_a_spawn_that_stopped_before_the_domain_was_defined_is_done_anew(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    directory = guest_dir(state_dir, tiny)
    directory.mkdir(parents=True)
    (directory / "disk").write_text("half a disk")
    assert await hypervisor.guests() == [tiny.server_id]
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    await console(hypervisor, tiny, lambda log: GREETED in log)


async def test_a_spawn_that_stopped_before_qemu_started_goes_on(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    domain_of(tiny).destroy()
    inode = (guest_dir(state_dir, tiny) / "disk").stat().st_ino
    await hypervisor.spawn(tiny, tiny_image, ignore)
    assert (guest_dir(state_dir, tiny) / "disk").stat().st_ino == inode
    assert await hypervisor.power_state(tiny.server_id) is PowerState.PAUSED


async def test_a_guest_of_another_spec_is_replaced(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.spawn(tiny.model_copy(update={"ram_mib": 48}), tiny_image, ignore)
    assert domain_of(tiny).maxMemory() == 48 * 1024


async def test_a_cancelled_spawn_leaves_nothing_running_beside_its_undo(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    begun = asyncio.Event()
    spawn = asyncio.create_task(hypervisor.spawn(tiny, tiny_image, lambda _: begun.set()))
    await begun.wait()
    spawn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawn
    await hypervisor.destroy(tiny.server_id)
    await asyncio.sleep(0.5)
    assert await hypervisor.guests() == []


async def test_destroying_leaves_no_trace_and_may_be_repeated(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    assert await hypervisor.guests() == [tiny.server_id]
    for _ in range(2):
        await hypervisor.destroy(tiny.server_id)
        assert await hypervisor.power_state(tiny.server_id) is PowerState.NOSTATE
        assert await hypervisor.guests() == []
        assert not guest_dir(state_dir, tiny).exists()


async def test_power_follows_what_is_asked(hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path) -> None:
    server_id = tiny.server_id
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.start(server_id)
    assert await hypervisor.power_state(server_id) is PowerState.RUNNING
    assert not await hypervisor.stop(server_id, AT_ONCE, ignore)
    assert await hypervisor.power_state(server_id) is PowerState.SHUTDOWN
    assert await hypervisor.stop(server_id, AT_ONCE, ignore)
    await hypervisor.reset(server_id)
    first = domain_of(tiny).ID()
    await hypervisor.start(server_id)
    assert domain_of(tiny).ID() == first
    await hypervisor.reset(server_id)
    assert domain_of(tiny).ID() != first
    assert await hypervisor.power_state(server_id) is PowerState.RUNNING
    await console(hypervisor, tiny, lambda log: GREETED in log)


async def test_a_guest_that_does_not_obey_is_switched_off_in_time(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    reports: list[str] = []
    begun = time.monotonic()
    assert not await hypervisor.stop(tiny.server_id, timedelta(seconds=1.2), reports.append)
    assert 1.2 <= time.monotonic() - begun < 5
    assert len(reports) == 3
    assert await hypervisor.power_state(tiny.server_id) is PowerState.SHUTDOWN


async def test_a_paused_guest_is_not_waited_for(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    async with asyncio.timeout(10):
        assert not await hypervisor.stop(tiny.server_id, FOREVER, ignore)


async def test_a_cancelled_stop_leaves_the_guest_running(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await hypervisor.resume(tiny.server_id)
    waiting = asyncio.Event()
    stop = asyncio.create_task(hypervisor.stop(tiny.server_id, FOREVER, lambda _: waiting.set()))
    await waiting.wait()
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert await hypervisor.power_state(tiny.server_id) is PowerState.RUNNING


async def test_a_server_that_is_not_here_is_not_found(hypervisor: LibvirtHypervisor) -> None:
    server_id = str(uuid4())
    calls = [
        hypervisor.resume(server_id),
        hypervisor.start(server_id),
        hypervisor.reset(server_id),
        hypervisor.stop(server_id, AT_ONCE, ignore),
        hypervisor.console_log(server_id, MIB),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call


async def test_another_hosts_guests_are_neither_seen_nor_touched(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, state_dir: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    (state_dir / "other").mkdir()
    other = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir / "other", str(uuid4()))
    assert await other.guests() == []
    await other.destroy(tiny.server_id)
    with pytest.raises(RescheduleError, match="not of this host worker"):
        await other.spawn(tiny, tiny_image, ignore)
    await other.close()
    assert await hypervisor.power_state(tiny.server_id) is PowerState.PAUSED


async def test_a_ports_tap_is_in_its_networks_bridge(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, bridge: str
) -> None:
    spec = tiny.model_copy(update={"ports": [port(bridge)]})
    await hypervisor.spawn(spec, tiny_image, ignore)
    assert plugged(bridge) == [(tap_name(spec.ports[0].port_id), 1450)]
    await hypervisor.destroy(spec.server_id)
    assert plugged(bridge) == []


async def test_a_guest_boots_from_a_volume(hypervisor: LibvirtHypervisor, volume: VolumeConnection) -> None:
    disk = GuestDisk(
        kind=DiskKind.ROOT,
        device="vda",
        size_bytes=DISK_BYTES,
        bootable=True,
        volume_id=volume.volume_id,
        connection=volume,
    )
    spec = guest(disk)
    await hypervisor.spawn(spec, None, ignore)
    await hypervisor.resume(spec.server_id)
    await console(hypervisor, spec, lambda log: GREETED in log)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ports": [port()]}, "brh"),
        ({"ram_mib": 1 << 30}, "memory"),
    ],
)
async def test_what_this_host_cannot_do_another_may_try(
    hypervisor: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(RescheduleError, match=reason) as caught:
        await hypervisor.spawn(tiny.model_copy(update=change), tiny_image, ignore)
    assert "\n" not in str(caught.value)


async def test_a_missing_image_is_a_reason_to_go_elsewhere(hypervisor: LibvirtHypervisor, tiny: GuestSpec) -> None:
    with pytest.raises(RescheduleError, match="/srv/no-image"):
        await hypervisor.spawn(tiny, Path("/srv/no-image"), ignore)


async def test_without_libvirtd_it_says_what_to_do(tmp_path: Path) -> None:
    settings = LibvirtSettings(uri=f"qemu+unix:///system?socket={tmp_path}/none", virt_type="qemu")
    driver: HypervisorDriver = LibvirtHypervisor(settings, HostSettings(), tmp_path, str(uuid4()))
    with pytest.raises(Unavailable) as caught:
        await driver.inventory()
    assert "systemctl start" in str(caught.value.remedy)
    await driver.close()


async def test_the_inventory_is_the_machines(hypervisor: LibvirtHypervisor) -> None:
    inventory = await hypervisor.inventory()
    assert inventory.hypervisor_type == "QEMU"
    assert inventory.vcpus == psutil.cpu_count()
    assert inventory.ram_mib == psutil.virtual_memory().total // MIB
    assert 0 < await hypervisor.free_ram_mib() <= inventory.ram_mib
    assert 0 < await hypervisor.free_disk_gib() < inventory.disk_gib


async def test_a_whole_system_gets_what_it_was_promised(hypervisor: LibvirtHypervisor, demo_image: Path) -> None:
    spec = guest(
        root_disk(image_ref(demo_image, DiskFormat.QCOW2, 33 * MIB), size_bytes=64 * MIB),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdb", size_bytes=16 * MIB),
        GuestDisk(kind=DiskKind.SWAP, device="vdc", size_bytes=8 * MIB),
        ram_mib=96,
        config_drive=True,
        user_data=base64.b64encode(b"#!/bin/sh\necho user data ran\n").decode(),
    )
    await hypervisor.spawn(spec, demo_image, ignore)
    await hypervisor.resume(spec.server_id)
    log = await console(hypervisor, spec, lambda log: "login:" in log and "user data ran" in log)
    assert "source=config-drive hostname=web-1" in log
    assert f"uuid={spec.server_id}" in log
    assert "disks=vda:64MiB,vdb:16MiB,vdc:8MiB" in log

    assert await hypervisor.stop(spec.server_id, FOREVER, ignore)
    assert await hypervisor.power_state(spec.server_id) is PowerState.SHUTDOWN
    await hypervisor.start(spec.server_id)
    again = await console(hypervisor, spec, lambda log: log.count("login:") == 2)
    assert "first_boot=no boots=2" in again
