"""A whole cloud as its users run it: the processes of `hostler dev`, with this machine's libvirt."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hostler import Client
from hostler.settings import Settings, TemporalSettings
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
DEMO = ROOT / ".cache" / "demo.qcow2"
HOSTLER = Path(sys.executable).with_name("hostler")
START_LIMIT = 120


@dataclass
class DevCloud:
    """A running `hostler dev`."""

    directory: Path
    settings: Settings
    supervisor: psutil.Process

    def processes(self, *words: str) -> list[psutil.Process]:
        """Its children whose command line has all of these words."""
        return [child for child in self.supervisor.children() if set(words) <= set(child.cmdline())]


@pytest.fixture(scope="module")
def dev_cloud() -> Iterator[DevCloud]:
    """A cloud with the real host `real` and the simulated `sim-1`, on ports and in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="hostler-test-", dir="/var/tmp"))
    directory.chmod(0o755)  # QEMU and dnsmasq run as users of their own
    temporal = TemporalSettings(address=f"127.0.0.1:{free_port()}", ui_url=f"http://127.0.0.1:{free_port()}")
    settings = Settings(state_dir=directory, temporal=temporal)
    config = directory / "hostler.toml"
    config.write_text(
        f"""
state_dir = "{directory}"
[temporal]
address = "{temporal.address}"
ui_url = "{temporal.ui_url}"
[operations]
resize_on_same_host = true
[host]
name = "real"
[host.simulated]
latency = {{ spawn = 3 }}
"""
    )
    log = directory / "dev.log"
    with log.open("w") as output:
        dev = subprocess.Popen(
            [HOSTLER, "--config", config, "dev", "--simulated", "1"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")},
        )
    try:
        asyncio.run(_until_ready(dev, log))
        yield DevCloud(directory, settings, psutil.Process(dev.pid))
    finally:
        dev.send_signal(signal.SIGTERM)
        dev.wait(timeout=60)
        shutil.rmtree(directory)


async def _until_ready(dev: "subprocess.Popen[bytes]", log: Path) -> None:
    async with asyncio.timeout(START_LIMIT):
        while "ready after" not in log.read_text():  # noqa: ASYNC240 - another process writes it
            assert dev.poll() is None, log.read_text()  # noqa: ASYNC240 - as above
            await asyncio.sleep(0.1)


@pytest.fixture
async def client(dev_cloud: DevCloud) -> AsyncIterator[Client]:
    """The way in, with a catalogue."""
    async with await Client.connect(dev_cloud.settings) as client:
        if not await client.flavors.list():
            await client.flavors.create("tiny", vcpus=1, ram_mib=128, disk_gib=1, ephemeral_gib=1, swap_mib=16)
            await client.flavors.create("larger", vcpus=2, ram_mib=160, disk_gib=2, ephemeral_gib=1, swap_mib=16)
            await client.networks.create("net", cidr="10.232.7.0/24")
            await client.images.create("demo", DEMO)
        yield client
