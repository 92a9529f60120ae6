"""What must be true of this machine before `hostler dev` starts anything, each with what to do when it is not."""

import errno
import importlib.util
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from hostler.contract.errors import HostlerError
from hostler.settings import LibvirtSettings, Settings
from workers.temporal_server import UI_PORT, find_binary, host_port

GIB = 1024**3
MIN_FREE_BYTES = 2 * GIB
LOW_FREE_SHARE = 0.05
CAP_NET_ADMIN = 12

# Each command that the drivers call, and the Debian package that brings it.
COMMANDS = {
    f"qemu-system-{platform.machine()}": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
}
PACKAGES = {"libvirt": "libvirt-python", "lxml": "lxml", "pycdlib": "pycdlib", "pyroute2": "pyroute2"}


@dataclass(frozen=True)
class Problem:
    """Something in the way, or (not `fatal`) something to know."""

    what: str
    remedy: str
    fatal: bool = True


def check(settings: Settings, *, libvirt: bool) -> list[Problem]:
    """Everything that `hostler dev` needs; with `libvirt`, also what real guests need. Blocks for seconds."""
    problems = [*check_state_dir(settings.state_dir), *check_temporal(), *check_ports(settings)]
    if libvirt:
        problems += [*check_packages(PACKAGES), *check_commands(COMMANDS), *check_privileges(_capabilities())]
    # The rest tries things out, which makes sense only where the state directory and the programs are there.
    if libvirt and not any(problem.fatal for problem in problems):
        problems += [*check_reachable(settings.state_dir), *check_libvirt(settings.host.libvirt)]
    if libvirt and not any(problem.fatal for problem in problems):
        problems += check_kvm(settings.host.libvirt, settings.state_dir)
    return problems


def check_temporal() -> list[Problem]:
    """The Temporal development server is installed."""
    try:
        find_binary()
    except HostlerError as error:
        return [Problem(str(error), error.remedy or "")]
    return []


def check_state_dir(directory: Path) -> list[Problem]:
    """It can be made and written to, and has room."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        what = f"the state directory {directory} cannot be written to: {error.strerror}"
        return [Problem(what, "set state_dir (HOSTLER_STATE_DIR) to a directory of yours, or run as root")]
    usage = shutil.disk_usage(directory)
    return list(disk_problems(directory, usage.free, usage.total))


def disk_problems(directory: Path, free_bytes: int, total_bytes: int) -> Iterator[Problem]:
    """What is wrong with this much free space."""
    shown = f"{free_bytes / GIB:.1f} GiB of {total_bytes / GIB:.1f} GiB are free in {directory}"
    remedy = "make room there, or set state_dir (HOSTLER_STATE_DIR) to a larger file system"
    if free_bytes < MIN_FREE_BYTES:
        yield Problem(f"the disk is full: only {shown}", remedy)
    elif free_bytes < LOW_FREE_SHARE * total_bytes:
        yield Problem(f"the disk is nearly full: {shown}", remedy, fatal=False)


def check_ports(settings: Settings) -> list[Problem]:
    """The addresses at which the Temporal server and the workers' metrics will be are free."""
    temporal, metrics = settings.temporal, settings.metrics
    wanted = {
        "temporal.address": host_port(temporal.address, 7233),
        "temporal.ui_url": host_port(temporal.ui_url, UI_PORT),
        "metrics.control_port": (metrics.address, metrics.control_port),  # 0, where they are off, is always free
        "metrics.host_port": (metrics.address, metrics.host_port),
    }
    return [
        problem
        for setting, (host, port) in wanted.items()
        if (problem := port_problem(setting, host, port)) is not None
    ]


def port_problem(setting: str, host: str, port: int) -> Problem | None:
    """Why nothing can listen at this address, which `setting` gives."""
    variable = f"HOSTLER_{setting.replace('.', '__').upper()}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what, remedy = f"port {port} is taken{_holder(port)}", "stop that, or give it another port with"
            else:
                what, remedy = f"nothing can listen at {host}:{port}: {error.strerror}", "correct"
            return Problem(what, f"{remedy} {setting} ({variable})")
    return None


def check_packages(packages: Mapping[str, str]) -> list[Problem]:
    """Python can import these modules; each is given with the name of its distribution."""
    missing = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
    return (
        [Problem(f"Python packages are missing: {', '.join(missing)}", "pip install hostler-server")] if missing else []
    )


def check_commands(commands: Mapping[str, str]) -> list[Problem]:
    """These commands exist; each is given with the name of its Debian package."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [command for command in commands if shutil.which(command, path=path) is None]
    if not missing:
        return []
    packages = sorted({commands[command] for command in missing})
    return [Problem(f"not installed: {', '.join(missing)}", f"apt-get install {' '.join(packages)}")]


def check_privileges(capabilities: int) -> list[Problem]:
    """The local network driver may make bridges; `capabilities` is a bit mask as in /proc."""
    if capabilities >> CAP_NET_ADMIN & 1:
        return []
    remedy = "run it as root, or with --no-libvirt --simulated 3 to look around without a hypervisor"
    return [Problem("bridges and taps need root (CAP_NET_ADMIN)", remedy)]


def check_libvirt(settings: LibvirtSettings) -> list[Problem]:
    """libvirtd answers."""
    from drivers.hypervisor.libvirt.connection import Connection  # not where no libvirt is wanted

    connection = Connection(settings.uri)
    try:
        connection.get()
    except HostlerError as error:
        return [Problem(f"{error} ({settings.uri})", error.remedy or "start libvirtd")]
    finally:
        connection.close()
    return []


def check_reachable(directory: Path) -> list[Problem]:
    """QEMU, which libvirt runs as a user of its own, can get to the guests' files."""
    closed = [str(path) for path in directory.absolute().parents if not path.stat().st_mode & 0o001]
    if not closed:
        return []
    remedy = f"chmod o+x {' '.join(closed)}, or set state_dir (HOSTLER_STATE_DIR) to another directory"
    return [Problem(f"QEMU's user may not enter {', '.join(closed)}, above the state directory", remedy, fatal=False)]


def check_kvm(settings: LibvirtSettings, state_dir: Path) -> list[Problem]:
    """A guest starts here, under KVM, and with the processor that the settings name. Tries it out."""
    from drivers.hypervisor.libvirt.connection import Connection
    from drivers.hypervisor.libvirt.probe import probe_virt_type
    from drivers.hypervisor.libvirt.processors import refuse_unusable

    connection = Connection(settings.uri)
    try:
        found = probe_virt_type(settings, state_dir)
        refuse_unusable(connection, settings.cpu_model, found.type)
    except HostlerError as error:
        return [Problem(str(error), error.remedy or "see libvirt's log of the guest, in /var/log/libvirt/qemu")]
    finally:
        connection.close()
    if found.type == "kvm" or settings.virt_type == "qemu":
        return []
    remedy = "nothing, to try things out; for speed, enable (nested) virtualisation in the firmware or hypervisor"
    return [Problem(f"guests run without KVM, many times slower: {found.reason}", remedy, fatal=False)]


def _holder(port: int) -> str:
    """Who listens at the port, as far as we may know."""
    try:
        listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
        owner = next((c.pid for c in listening if c.laddr and c.laddr.port == port), None)
        return f" by {psutil.Process(owner).name()} (pid {owner})" if owner is not None else ""
    except psutil.Error:
        return ""


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0
