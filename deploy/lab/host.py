"""A host of the lab: namespaces of its own for network, mounts, name, IPC and processes, and a disk that outlives them.

Its first process is its power: SIGKILL for it is a power cut, after which nothing of the host is left but its files.
"""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.lab import wires
from deploy.lab.disk import host_name
from deploy.lab.site import Refused, Site
from workers.dev import hostler

BOOT = Path(__file__).with_name("boot")
INIT = "tini"
NAMESPACES = ["--net", "--mount", "--uts", "--ipc", "--pid"]
START_SECONDS, DEATH_SECONDS = 10, 20
REGISTERED = "registered"
"""What the host worker logs when the cloud knows it."""


@dataclass(frozen=True)
class Host:
    """A host, by its number from 1."""

    site: Site
    number: int

    @property
    def name(self) -> str:
        """Its host name."""
        return host_name(self.number)

    @property
    def address(self) -> str:
        """Its address in the lab's network."""
        return str(self.site.subnet[self.number])

    @property
    def directory(self) -> Path:
        """Its disk."""
        return hosts_directory(self.site) / self.name

    @property
    def init(self) -> psutil.Process | None:
        """Its first process, while the host is on: there is no other record of it than its command line."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == INIT and process.cmdline()[2:5] == self._boot()[:3]:
                    return process
        return None

    @property
    def joined(self) -> bool:
        """Whether its cable is in, or will be when it starts."""
        return not self._cut.exists()

    @property
    def registered(self) -> bool:
        """Whether the cloud has known it since it was started."""
        log = self.directory / "log" / "worker.log"
        return log.exists() and REGISTERED in log.read_text(errors="replace") and self.init is not None

    def start(self) -> None:
        """Switch it on. It is booting when this returns.

        Raises:
            Refused: it is on, or cannot be.
        """
        if self.init is not None:
            raise Refused(f"{self.name} is on already", f"cut its power first: kill {self.name}")
        (self.directory / "log" / "worker.log").unlink(missing_ok=True)
        # unshare itself stays outside; it ends with the first process inside, and ends that when it is killed.
        command = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child", INIT, "--", *self._boot()]
        with (self.directory / "log" / "boot.log").open("ab") as log:
            outside = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment()
            )
        wires.plug(self.site, self.number, self._wait_for_init(outside).pid, up=self.joined)

    def kill(self) -> None:
        """Cut its power. Nothing of it runs when this returns."""
        init = self.init
        if init is not None:
            init.send_signal(signal.SIGKILL)
            _await_death(init)
        wires.unplug(self.site, self.number)

    def cut(self) -> None:
        """Pull its network cable out. It stays out when the host is started again."""
        self._cut.touch()
        if self.init is not None:
            wires.switch(self.site, self.number, up=False)

    def join(self) -> None:
        """Put its cable back in."""
        self._cut.unlink(missing_ok=True)
        if self.init is not None:
            wires.switch(self.site, self.number, up=True)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command on the host.

        Raises:
            Refused: it is off.
        """
        init = self.init
        if init is None:
            raise Refused(f"{self.name} is off", f"start it: start {self.name}")
        return ["nsenter", "--target", str(init.pid), *NAMESPACES, *command]

    def guests(self) -> int:
        """How many QEMU processes it has."""
        init = self.init
        with contextlib.suppress(psutil.Error):
            names = [process.name() for process in init.children(recursive=True)] if init else []
            return sum(name.startswith("qemu-system") for name in names)
        return 0

    def last_words(self) -> str:
        """The end of what it wrote while it booted and of its worker's log."""
        logs = [self.directory / "log" / name for name in ("boot.log", "libvirtd.log", "worker.log")]
        lines = [f"{log.name}: {line}" for log in logs if log.exists() for line in _tail(log)]
        return "\n".join(lines) or "it has said nothing"

    def _wait_for_init(self, outside: "subprocess.Popen[bytes]") -> psutil.Process:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and outside.poll() is None:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(outside.pid).children():
                    if child.name() == INIT:  # it has the namespaces now
                        return child
            time.sleep(0.01)
        outside.kill()
        raise Refused(f"{self.name} does not start: {self.last_words()}", "see the log, in " + str(self.directory))

    def _boot(self) -> list[str]:
        address = f"{self.address}/{self.site.subnet.prefixlen}"
        return [str(BOOT), str(self.site.directory), self.name, address, *hostler()]

    @property
    def _cut(self) -> Path:
        return self.directory / "cut"


def hosts_directory(site: Site) -> Path:
    """Where the hosts' disks are."""
    return site.directory / "hosts"


def hosts_of(site: Site) -> list[Host]:
    """All hosts of the lab."""
    return [Host(site, number) for number in range(1, site.hosts + 1)]


def host_of(site: Site, name: str) -> Host:
    """The host of this name.

    Raises:
        Refused: there is none.
    """
    for host in hosts_of(site):
        if host.name == name:
            return host
    raise Refused(f"the lab has no host {name!r}", f"it has {', '.join(host.name for host in hosts_of(site))}")


def _environment() -> dict[str, str]:
    """Of our environment what a machine would boot with."""
    return {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin", "LANG": "C.UTF-8"}


def _await_death(process: psutil.Process) -> None:
    """Until it has ended: the kernel lets the first process end last. Its zombie does not matter."""
    deadline = time.monotonic() + DEATH_SECONDS
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.02)
    raise Refused(f"process {process.pid} does not end", "see what it waits for: /proc/PID/stack")


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-5:]
