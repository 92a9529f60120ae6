"""This machine's libvirt, images to boot, and a state directory that QEMU may reach."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import DISK_BYTES, boot_disk
from hostler.contract.guests import GuestSpec
from hostler.contract.resources import DiskFormat
from hostler.settings import HostSettings, LibvirtSettings
from tests.drivers.hypervisor.libvirt.guests import guest, image_ref, root_disk
from tests.drivers.hypervisor.libvirt.relay import Relay

ROOT = Path(__file__).parents[4]
DEMO = ROOT / ".cache" / "demo.qcow2"


@pytest.fixture(scope="session")
def state_root() -> Iterator[Path]:
    """A directory that QEMU, which is another user, can pass through; pytest's own are private."""
    directory = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def state_dir(state_root: Path) -> Path:
    """A state directory of the test's own."""
    return make_state_dir(state_root)


@pytest.fixture
def next_dir(state_root: Path) -> Path:
    """Another one, of `next_host`."""
    return make_state_dir(state_root)


def make_state_dir(state_root: Path) -> Path:
    directory = Path(tempfile.mkdtemp(dir=state_root))
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def tiny_image(state_root: Path) -> Path:
    """A raw image of 1 MiB that greets on its console and halts."""
    file = state_root / "tiny.raw"
    file.write_bytes(boot_disk())
    return file


@pytest.fixture(scope="session")
def demo_image(state_root: Path) -> Path:
    """The demo guest's image, built if it has to be."""
    subprocess.run([ROOT / "deploy/guest/build", DEMO], check=True)
    return Path(shutil.copy(DEMO, state_root))


@pytest.fixture
def host_id() -> str:
    """The UUID of the host that the machine is."""
    return str(uuid4())


@asynccontextmanager
async def a_host(
    state_dir: Path, host_id: str, *, host: HostSettings | None = None, storage: Path | None = None
) -> AsyncIterator[LibvirtHypervisor]:
    settings = LibvirtSettings(virt_type="qemu", shared_disks=storage)
    driver = LibvirtHypervisor(settings, host or HostSettings(), state_dir, host_id)
    yield driver
    for server_id in await driver.guests():
        await driver.destroy(server_id)
    for server_id in await driver.formers():
        await driver.drop_former(server_id)
    await driver.close()


@pytest.fixture
def tiny(tiny_image: Path) -> GuestSpec:
    """A guest that greets and halts."""
    return guest(root_disk(image_ref(tiny_image, DiskFormat.RAW, DISK_BYTES)))


@pytest.fixture
async def hypervisor(state_dir: Path, host_id: str) -> AsyncIterator[LibvirtHypervisor]:
    """The driver under TCG, which every machine has. Guests that a test leaves behind are removed."""
    async with a_host(state_dir, host_id) as driver:
        yield driver


@pytest.fixture
async def next_host(next_dir: Path) -> AsyncIterator[LibvirtHypervisor]:
    """Another host on this machine, for guests that move."""
    async with a_host(next_dir, str(uuid4())) as driver:
        yield driver


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A libvirtd that answers until the test stops it, and again when it is started."""
    relay = Relay(tmp_path / "sock")
    relay.start()
    yield relay
    relay.stop()
