"""This machine's libvirt, images to boot, and a state directory that QEMU may reach."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.boot_sector import boot_disk
from hostler.settings import HostSettings, LibvirtSettings
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


@pytest.fixture
async def hypervisor(state_dir: Path, host_id: str) -> AsyncIterator[LibvirtHypervisor]:
    """The driver under TCG, which every machine has. Guests that a test leaves behind are removed."""
    driver = LibvirtHypervisor(LibvirtSettings(virt_type="qemu"), HostSettings(), state_dir, host_id)
    yield driver
    for server_id in await driver.guests():
        await driver.destroy(server_id)
    await driver.close()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A libvirtd that answers until the test stops it, and again when it is started."""
    relay = Relay(tmp_path / "sock")
    relay.start()
    yield relay
    relay.stop()
