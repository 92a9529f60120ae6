"""Sees where guests run, all the time: `python -m tests.faults.lab.watcher DIRECTORY LOG`, until SIGTERM.

Several times a second it asks the libvirt of every host of a lab, from outside, by way of its socket: so it also sees a
host whose cable is out. What has changed is a line of the log. A guest that runs on two hosts at once is one, too.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import libvirt
import psutil

from deploy.lab.host import Host, hosts_of
from deploy.lab.site import Site

INTERVAL = 0.2
TWICE, RUNS, STANDS_STILL, IS_OFF = "runs twice", "runs", "stands still", "is off"
SOCKET, BOOTED = "libvirt/libvirt-sock", "lab/host"
"""Below the host's /run. Until the host has one of its own, this machine's libvirt is there."""
STATES = {libvirt.VIR_DOMAIN_RUNNING: RUNS, libvirt.VIR_DOMAIN_SHUTOFF: IS_OFF, libvirt.VIR_DOMAIN_CRASHED: IS_OFF}

States = dict[str, str]
"""What guests do, by their UUIDs."""


class Looks(Protocol):
    """Looks at one host."""

    def look(self) -> States:
        """What its guests do."""


class Eye:
    """Looks at one host of a lab."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._init: psutil.Process | None = None
        self._connection: libvirt.virConnect | None = None

    def look(self) -> States:
        """What its guests do; nothing while it is off, or has no libvirt yet."""
        try:
            if self._connection is None:
                self._open()
            return {} if self._connection is None else _states(self._connection)
        except libvirt.libvirtError:
            self._connection = None
            return {}

    def _open(self) -> None:
        if self._init is None or not _is_alive(self._init):
            self._init = self._host.init
        if self._init is None:
            return
        run = Path(f"/proc/{self._init.pid}/root/run")
        if (run / BOOTED).exists() and (run / SOCKET).exists():
            self._connection = libvirt.open(f"qemu+unix:///system?socket={run / SOCKET}")


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _states(connection: libvirt.virConnect) -> States:
    found = {}
    for domain in connection.listAllDomains():
        with suppress(libvirt.libvirtError):  # it has gone since
            found[domain.UUIDString()] = STATES.get(domain.state()[0], STANDS_STILL)
    return found


class Watcher:
    """Looks at all hosts, and writes down what changes."""

    def __init__(self, eyes: Mapping[str, Looks], log: Path) -> None:
        self._eyes = eyes
        self._log = log.open("a", buffering=1)
        self._known: dict[str, States] = defaultdict(dict)

    def look(self) -> None:
        """Look once; whatever runs on two hosts is looked at again on the first of them, for it may have just moved."""
        seen: dict[str, list[str]] = defaultdict(list)
        for name, eye in self._eyes.items():
            states = eye.look()
            self._tell(name, states)
            for guest in (one for one, state in states.items() if state == RUNS):
                seen[guest].append(name)
        for guest, names in seen.items():
            if len(names) > 1 and self._eyes[names[0]].look().get(guest) == RUNS:
                self._write(" and ".join(names), guest, TWICE)

    def _tell(self, name: str, states: States) -> None:
        before = self._known[name]
        for guest in before.keys() | states.keys():
            if before.get(guest) != states.get(guest):
                self._write(name, guest, states.get(guest, "is not there"))
        self._known[name] = states

    def _write(self, host: str, guest: str, what: str) -> None:
        self._log.write(json.dumps({"at": round(time.time(), 2), "host": host, "guest": guest, "what": what}) + "\n")


def main() -> None:
    """The program."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    hosts = hosts_of(Site.load(Path(sys.argv[1])))
    watcher = Watcher({host.name: Eye(host) for host in hosts}, Path(sys.argv[2]))
    while True:
        watcher.look()
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
