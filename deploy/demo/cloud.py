"""A cloud of the demo's own: how it is started and stopped, and how all that it left on the machine is removed.

It is the real `hostler dev` with settings of its own, beside whatever other cloud this machine has.
"""

import asyncio
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from drivers.directories import first_closed
from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
from drivers.network.local import LocalNetwork
from drivers.volume.local import LocalVolumes
from hostler.contract.names import server_workflow_id
from hostler.settings import Settings, load
from workers.dev import hostler, hosts_up
from workers.host_identity import host_id

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
IMAGE = CACHE / "demo.qcow2"
LOG = CACHE / "demo.log"
ELSEWHERE = Path("/var/lib/hostler-demo")
"""For a repository that QEMU's and dnsmasq's users cannot get to, such as one in /root."""
LOCK = Path("/run/hostler-demo.lock")

READY, GRACE, KILLED = timedelta(seconds=90), timedelta(seconds=20), timedelta(seconds=5)
POLL_SECONDS = 0.1
LAST_LINES = 15
TEMPORAL_PORT, UI_PORT = 7233, 8233
ADDRESSES = """\
state_dir = {directory}

[temporal]
address = "127.0.0.1:{port}"
ui_url = "http://127.0.0.1:{ui_port}"
"""
SUBNETS = [f"{prefix}.{number}.0/24" for number in range(20, 30) for prefix in ("10.20", "172.30", "192.168", "198.18")]


class Failed(Exception):
    """The demo did not show what it is there to show."""


@dataclass
class Cloud:
    """A cloud whose state is in `directory`."""

    directory: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def config(self) -> Path:
        """Its settings file."""
        return self.directory / "hostler.toml"

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return load(self.config)

    async def start(self, settings: str, *arguments: str, hosts: int) -> Sequence[str]:
        """Start it in a new directory, with these settings and arguments. The names of its hosts, once they are up.

        Raises:
            Failed: it does not start; the end of its log says why.
        """
        self.directory.mkdir(mode=0o755)
        self.directory.chmod(0o755)
        port = free_port(TEMPORAL_PORT)
        ui_port = free_port(UI_PORT, besides=port)
        addresses = ADDRESSES.format(directory=json.dumps(str(self.directory)), port=port, ui_port=ui_port)
        self.config.write_text(addresses + settings)
        command = hostler("--config", str(self.config), "dev", *arguments)
        with LOG.open("wb") as log:
            # A session of its own: a Ctrl-C is for the demo, which then stops it in order.
            self._process = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would not outlive the demo
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        waiting = asyncio.create_task(hosts_up(self.settings, hosts))
        deadline = monotonic() + READY.total_seconds()
        try:
            while not waiting.done():
                if self._process.poll() is not None or monotonic() > deadline:
                    raise Failed(f"`{' '.join(command)}` does not come up. The end of {LOG}:\n{last_lines()}")
                await asyncio.wait([waiting], timeout=POLL_SECONDS)
            return waiting.result()
        finally:
            waiting.cancel()

    def pid(self) -> int | None:
        """The process that runs a cloud in this directory."""
        if self._process and self._process.poll() is None:
            return self._process.pid
        # One that another demo started: it holds the lock that names it.
        with suppress(FileNotFoundError), (self.directory / "dev.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with suppress(ValueError, KeyError):
                    return int(json.load(file)["pid"])
        return None

    async def stop(self) -> None:
        """Stop its processes: in order, and by force if that takes too long. Guests are not processes of it."""
        for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, KILLED)):
            if pid := self.pid():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = monotonic() + grace.total_seconds()
            while self.pid() and monotonic() < deadline:  # noqa: ASYNC110 - not a task of ours
                await asyncio.sleep(POLL_SECONDS)

    async def sweep(self) -> list[str]:
        """Remove every guest, port and volume export of it with the drivers' own tools, then its directory.

        For a cloud that was interrupted; one that has deleted its servers has none. What was removed.
        """
        settings, removed = load(self.config) if self.config.exists() else Settings(), []
        hypervisor = LibvirtHypervisor(settings.host.libvirt, settings.host, self.directory, host_id(self.directory))
        network = LocalNetwork(self.directory / "network", host_id(self.directory))
        volumes = LocalVolumes(self.directory / "volumes", settings.host.volume_address)
        try:
            for server_id in await hypervisor.guests():
                await hypervisor.destroy(server_id)
                removed.append(f"guest {server_id}")
            for port in await network.ports():
                await network.unbind(port.port_id)
                removed.append(f"port {port.ip} of network {port.network}")
            for volume_id in await volumes.exports():
                await volumes.withdraw(volume_id)
                removed.append(f"volume {volume_id}")
        finally:
            await asyncio.gather(hypervisor.close(), network.close(), volumes.close())
        shutil.rmtree(self.directory, ignore_errors=True)
        return removed

    def link(self, server_id: str, run_id: str) -> str:
        """Where the web UI shows a run of an operation."""
        temporal = self.settings.temporal
        workflow = quote(server_workflow_id(server_id), safe="")
        return f"{temporal.ui_url}/namespaces/{temporal.namespace}/workflows/{workflow}/{run_id}/timeline"


@contextmanager
def place(chosen: Path | None) -> Iterator[Cloud]:
    """The demo's cloud, in a chosen directory or in its own, for one demo there at a time.

    Raises:
        Failed: another demo is at work.
    """
    directory = chosen or CACHE / "demo-cloud"
    CACHE.mkdir(exist_ok=True)
    if chosen is None and first_closed(directory) is not None:
        directory = ELSEWHERE
    with (chosen.with_suffix(".lock") if chosen else LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("another demo is at work on this machine: let it end first") from None
        yield Cloud(directory)


def free_port(wanted: int, *, besides: int | None = None) -> int:
    """`wanted` if nobody listens there, else any free port."""
    for port in (wanted, 0, 0, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            if found != besides:
                return found
    raise Failed("there is no free port")


def free_subnet() -> str:
    """A subnet to which this machine has no route yet.

    Raises:
        Failed: all that the demo tries are in use.
    """
    shown = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True)
    routes = [ipaddress.IPv4Network(route["dst"]) for route in json.loads(shown.stdout) if route["dst"] != "default"]
    for subnet in SUBNETS:
        if not any(ipaddress.IPv4Network(subnet).overlaps(route) for route in routes):
            return subnet
    raise Failed(f"this machine has routes to each of {', '.join(SUBNETS)}")


def last_lines() -> str:
    """The end of the cloud's log."""
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-LAST_LINES:])
