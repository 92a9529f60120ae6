"""What servers take of a machine and of a cloud, seen from outside: by virsh, ip, nft, /proc, files and SQL.

The demo looks twice, while its servers run and after their deletion: the first look shows that the second would see.
"""

import json
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from hostler.contract.names import bridge_name, tap_name
from hostler.contract.servers import Server

Traces = dict[str, list[str]]
"""What was found, by where it was looked for."""

REFUSING = "sim-1"
REFUSED = f"host {REFUSING}: guests, claims and ports"
OWED = "database: clean-ups still owed by a host"
NEVER = (REFUSED, OWED)
"""What must not be there even while the servers run."""


def look(directory: Path, servers: Sequence[Server]) -> Traces:
    """Everything that these servers of the cloud in `directory` have now."""
    ids = {server.id for server in servers}
    addresses = [address for server in servers for address in server.addresses]
    bridges = {bridge_name(address.network_id) for address in addresses}
    taps = {tap_name(address.port_id) for address in addresses}
    links = {link["ifname"] for link in json.loads(_run("ip", "-json", "link"))}
    rules = _run("nft", "list", "ruleset")
    simulated = directory / "simulated" / REFUSING
    return {
        "libvirt: domains": sorted(ids.intersection(_run("virsh", "list", "--all", "--uuid").split())),
        "processes: QEMU": _processes("qemu-system", directory),
        "processes: dnsmasq": _processes("dnsmasq", directory),
        "interfaces: taps": sorted(taps & links),
        "interfaces: bridges": sorted(bridges & links),
        "nftables: bridges in rules": sorted(bridge for bridge in bridges if bridge in rules),
        "files: guests' directories": _files(directory, "guests/*"),
        "files: claims": _files(directory, "claims/**/*.json"),
        "files: ports bound on the host": _files(directory, "network/ports/*"),
        REFUSED: _files(simulated, "guests/*", "claims/**/*.json", "ports/*"),
        "database: allocations": _rows(directory, "SELECT server_id FROM allocation"),
        "database: ports": _rows(directory, "SELECT id FROM port"),
        "database: block devices": _rows(directory, "SELECT server_id || ' ' || device FROM block_device"),
        "database: servers that count against the quota": _rows(
            directory, "SELECT id FROM server WHERE deleted_at IS NULL"
        ),
        OWED: _rows(directory, "SELECT activity FROM owed_work"),
    }


def unseen(traces: Traces) -> Iterable[str]:
    """Where running servers must have left something, and nothing was found."""
    return (where for where, found in traces.items() if not found and where not in NEVER)


def _run(*command: str) -> str:
    connect = ["--connect", "qemu:///system"] if command[0] == "virsh" else []
    return subprocess.run([command[0], *connect, *command[1:]], capture_output=True, text=True, check=True).stdout


def _processes(name: str, directory: Path) -> list[str]:
    """The processes of this name that were started for the cloud."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if command and Path(command[0]).name.startswith(name) and f"{directory}/" in " ".join(command):
                found.append(str(process.pid))
    return found


def _files(directory: Path, *patterns: str) -> list[str]:
    return sorted(str(path.relative_to(directory)) for pattern in patterns for path in directory.glob(pattern))


def _rows(directory: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{directory / 'hostler.db'}?mode=ro", uri=True)) as database:
        return [str(row[0]) for row in database.execute(query)]
