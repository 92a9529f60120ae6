"""The libvirt site: real guests, bridges, DHCP servers, NAT and volume exports of this machine.

Beside the real host there is a simulated one, so that an operation that leaves the real host has somewhere to go.
What is left on the machine is looked for from outside: by virsh, ip, nft and /proc.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
from drivers.network import nat
from drivers.network.local import LocalNetwork
from drivers.volume.local import LocalVolumes
from hostler.contract.host_work import DRAIN_HOST, HOST_FAILURE
from hostler.contract.names import bridge_name, tap_name
from hostler.contract.servers import OperationName
from hostler.settings import HostSettings, LibvirtSettings, OperationSettings
from tests.faults.operations import NETWORKS
from tests.faults.servers import TemporalServers
from tests.faults.site import Cell, HostPlan, Site, simulated_host
from tests.faults.world import Roles, World
from workers.host_identity import host_id

REAL = "real"
JOBS = 3
PROGRAMS = ("qemu-system", "qemu-nbd", "dnsmasq")
URI = "qemu:///system"
# How nft lists a ruleset.
TABLE = re.compile(r"^table .*?^}", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^\t(?:set|chain) .*?^\t}", re.MULTILINE | re.DOTALL)
ELEMENTS = re.compile(r"elements = \{ (.*?) }")


def libvirt_site(servers: TemporalServers, template: Path, disk: Path, jobs: int | None = None) -> Site:
    """The site; every case has identifiers and subnets of its own, since they share the machine."""
    return Site(
        "libvirt",
        servers,
        template,
        disk,
        hosts=_hosts,
        subnets=lambda slot: (f"10.233.{2 * slot}.0/24", f"10.233.{2 * slot + 1}.0/24"),
        look=_look,
        sweep=_sweep,
        unique=True,
        settings=OperationSettings(resize_on_same_host=True),
        # There is no second host of the kind.
        without=frozenset(
            {OperationName.MIGRATE, OperationName.LIVE_MIGRATE, OperationName.EVACUATE, DRAIN_HOST, HOST_FAILURE}
        ),
        jobs=jobs or JOBS,
    )


def _hosts() -> list[HostPlan]:
    # Its guests have nothing to boot from, which TCG serves as well as KVM.
    real = HostSettings(name=REAL, driver="libvirt", libvirt=LibvirtSettings(uri=URI, virt_type="qemu"))
    return [HostPlan(REAL, real), simulated_host("second", 2048)]


async def _look(cell: Cell, world: World, roles: Roles) -> None:
    found = await asyncio.to_thread(_of_machine, cell)
    for what, lines in found.items():
        world.sections[f"{roles(REAL)}: {what}"] = sorted(roles(line) for line in lines)
    world.sections[f"{roles(REAL)}: nftables"] = await asyncio.to_thread(_nftables, cell, roles)


def _nftables(cell: Cell, roles: Roles) -> list[str]:
    """The table of the real host, and whatever else has to do with the case's bridges."""
    marks = [bridge_name(cell.scene.id(name)) for name in NETWORKS]
    for owner in (one for one, name in cell.host_ids().items() if name == REAL):
        own = nat.table(owner)
        marks.append(own)
        roles.add(own, "Hostler's own")
    return rules(_run("nft", "--stateless", "list", "ruleset"), marks, roles)


def rules(ruleset: str, marks: Iterable[str], roles: Roles) -> list[str]:
    """The nftables tables that bear one of the marks: a line for each, and one for each of its sets and chains."""
    found = []
    for table in TABLE.findall(ruleset):
        if any(mark in table for mark in marks):
            found.append(roles(table.partition(" {")[0]))
            found += [ELEMENTS.sub(_in_order, roles(" ".join(block.split()))) for block in BLOCK.findall(table)]
    return sorted(found)


def _in_order(elements: "re.Match[str]") -> str:
    """nft sorts by names that are others in every case."""
    return f"elements = {{ {', '.join(sorted(elements[1].split(', ')))} }}"


def _of_machine(cell: Cell) -> dict[str, list[str]]:
    """What of the machine belongs to the case: by its directory, its server's UUID, its networks and ports."""
    bridges = {bridge_name(cell.scene.id(name)) for name in NETWORKS}
    server_id = cell.scene.id("server")
    taps = {tap_name(str(uuid5(NAMESPACE_URL, f"{server_id}/port/{number}"))) for number in range(len(NETWORKS))}
    links = [one for one in json.loads(_run("ip", "-json", "link")) if _is_ours(one, bridges, taps)]
    return {
        "domains": list(_domains(server_id)),
        "links": [f"{one['ifname']} in {one.get('master', 'nothing')}" for one in links],
        "processes": list(_processes(cell.directory)),
    }


def _is_ours(link: dict[str, Any], bridges: set[str], taps: set[str]) -> bool:
    return link["ifname"] in bridges | taps or link.get("master") in bridges


def _domains(server_id: str) -> Iterator[str]:
    if server_id in _run("virsh", "-c", URI, "list", "--all", "--uuid").split():
        state = subprocess.run(["virsh", "-c", URI, "domstate", server_id], capture_output=True, text=True, check=False)
        yield f"{server_id} {state.stdout.strip() or 'going'}"


def _processes(directory: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            program = Path(words[0]).name
            if program.startswith(PROGRAMS) and any(f"{directory}{os.sep}" in word for word in words):
                yield program


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def _sweep(cell: Cell) -> None:
    """Remove all that the case has left on the machine, by the drivers' own means."""
    directory = cell.directory / REAL
    settings = cell.hosts[REAL].settings.host
    if not (directory / "host_id").exists():
        return
    owner = host_id(directory)
    hypervisor = LibvirtHypervisor(settings.libvirt, settings, directory, owner)
    network = LocalNetwork(directory / "network", owner)
    volumes = LocalVolumes(directory / "volumes", settings.volume_address)
    try:
        for server_id in await hypervisor.guests():
            await hypervisor.destroy(server_id)
        for port in await network.ports():
            await network.unbind(port.port_id)
        for volume_id in await volumes.exports():
            await volumes.withdraw(volume_id)
    finally:
        await asyncio.gather(hypervisor.close(), network.close(), volumes.close())
