"""A libvirtd of a test's own, which may be killed: in a mount namespace where its directories are not the machine's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt

from tests.processes.process import Process
from tests.stage import eventually

PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
START_SECONDS, POLL_SECONDS = 60, 0.1
LIBVIRTD = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
# No virtlogd beside it, and nothing that two libvirtds of one machine would fight for.
QEMU = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""


@dataclass(frozen=True)
class Libvirtd:
    """The daemon, and where it answers."""

    process: Process
    uri: str

    async def start(self) -> None:
        """Start it; returns when it answers."""
        self.process.start()
        await eventually(self.answers, within=START_SECONDS)

    def answers(self) -> bool:
        """Whether it serves."""
        assert self.process.running, self.process.end_of_log()
        try:
            return bool(libvirt.open(self.uri).getLibVersion())
        except libvirt.libvirtError:
            return False

    def domains(self) -> list[str]:
        """The UUIDs of all domains."""
        return [domain.UUIDString() for domain in libvirt.open(self.uri).listAllDomains()]

    def destroy_all(self) -> None:
        """End what a failed test left running, even if it has killed the daemon."""
        if not self.process.running:
            self.process.start()
        deadline = time.monotonic() + START_SECONDS
        while not self.answers() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for domain in libvirt.open(self.uri).listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


@contextmanager
def private_libvirtd(directory: Path) -> Iterator[Libvirtd]:
    """The daemon, not yet started; it and its guests are gone afterwards."""
    for place in PLACES:
        (directory / place).mkdir(parents=True)
    (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD)
    (directory / "etc" / "qemu.conf").write_text(QEMU)
    binds = " && ".join(
        f"mkdir -p {where} && mount --bind {directory / place} {where}" for place, where in PLACES.items()
    )
    command = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        f"{binds} && exec libvirtd --pid-file={PLACES['run']}/libvirtd.pid",
    ]
    libvirtd = Libvirtd(
        Process("libvirtd", command, directory / "libvirtd.log"),
        f"qemu:///system?socket={directory / 'run' / 'libvirt-sock'}",
    )
    try:
        yield libvirtd
    finally:
        libvirtd.destroy_all()
        libvirtd.process.kill()
