"""What is on the disk of a new host: the files that it finds when it boots, and that a power cut leaves."""

import json
import shutil
import sys
from pathlib import Path
from uuid import uuid4

from deploy.demo.cloud import free_port
from deploy.lab.certificates import Authority
from deploy.lab.site import Site

CAPABILITIES = Path("/var/cache/libvirt/qemu/capabilities")
"""What this machine's libvirt found out about QEMU. Each host would take 4 s to find the same."""

LIBVIRTD = """\
host_uuid = "{uuid}"
listen_tls = 1
listen_tcp = 0
listen_addr = "{address}"
"""
# Hosts have no cgroups of their own, and no security driver's profiles. The TLS certificates are for migrations.
QEMU = """\
cgroup_controllers = []
namespaces = []
security_driver = "none"
migration_address = "{address}"
default_tls_x509_cert_dir = "/etc/pki/qemu"
default_tls_x509_verify = 1
migrate_tls_x509_verify = 1
"""
HOSTLER = """\
state_dir = "{state}"
images = "{images}"

[temporal]
address = "{temporal}"
ui_url = "{ui}"
heartbeat_interval = 2

[host]
name = "{name}"
overlay_address = "{address}"
migration_address = "{address}"
volume_address = "{address}"
# All hosts of the lab are one machine: each has its share of it.
ram_ratio = {share}
disk_ratio = {share}
"""
CONTROL = """\
state_dir = "{control}"
images = "{images}"

[temporal]
address = "127.0.0.1:{port}"
ui_url = "{ui}"
heartbeat_interval = 2

# Of servers that ask for it, by the metadata hostler:evacuate. The lab is its own fence.
[host_failure]
interval = 2
silence = 10
fence_command = {fence}
"""
SHARED = """
[host.libvirt]
shared_disks = "{shared}"
"""
LOOPBACK_PORT = 17233
"""Where Temporal is for those on the machine itself, if that is free: `hostler dev` takes 7233."""


def host_name(number: int) -> str:
    """The name of a lab's host, counted from 1."""
    return f"lab-{number}"


def write_control(site: Site) -> None:
    """The settings of the control plane, and the directories that it shares with the hosts."""
    port = free_port(LOOPBACK_PORT)
    values = {"control": site.control, "images": site.images, "port": port, "ui": site.ui}
    site.config.write_text(CONTROL.format(**values, fence=json.dumps(fence_command(site))))
    site.control.mkdir(mode=0o700, exist_ok=True)
    site.images.mkdir(mode=0o755, exist_ok=True)
    if site.shared:
        site.shared_disks.mkdir(mode=0o755, exist_ok=True)


def fence_command(site: Site) -> list[str]:
    """What cuts the power of the host whose name is the next word."""
    return [sys.executable, "-m", "deploy.lab.lab", "fence", "--directory", str(site.directory)]


def write_hosts(site: Site, root: Path, keys: Path) -> None:
    """All hosts' files below `root`: a directory each. `keys`: those that encrypt what Temporal keeps."""
    authority = Authority(site.name)
    numbers = range(1, site.hosts + 1)
    known = "127.0.0.1 localhost\n" + "".join(f"{site.subnet[n]} {host_name(n)}\n" for n in numbers)
    for number in numbers:
        name, address, host = host_name(number), site.subnet[number], root / host_name(number)
        etc = host / "etc"
        authority.issue(name, address, etc)
        values = {"name": name, "address": address, "uuid": uuid4(), "share": round(1 / site.hosts, 2)}
        values |= {"state": site.state, "images": site.images, "temporal": site.temporal, "ui": site.ui}
        settings = HOSTLER.format(**values)
        if site.shared:
            settings += SHARED.format(shared=site.shared_disks)
        for path, text in {
            etc / "hostname": f"{name}\n",
            etc / "hosts": known,
            etc / "machine-id": f"{uuid4().hex}\n",
            etc / "hostler" / "hostler.toml": settings,
            host / "libvirt" / "etc" / "libvirtd.conf": LIBVIRTD.format(**values),
            host / "libvirt" / "etc" / "qemu.conf": QEMU.format(**values),
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for part in ("lib", "cache", "log"):
            (host / "libvirt" / part).mkdir()
        for part in ("work", "state", "log"):
            (host / part).mkdir(mode=0o755)
        shutil.copy2(keys, host / "state" / keys.name)
        if CAPABILITIES.is_dir():
            shutil.copytree(CAPABILITIES, host / "libvirt" / "cache" / "qemu" / "capabilities")
