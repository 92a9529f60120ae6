"""The DHCP server of one network on this host: a dnsmasq that knows only the ports that are bound here. Calls block.

Guests ask the name servers themselves, so dnsmasq's own DNS stays off.
"""

import pwd
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path

from drivers import durable
from drivers.daemons import Daemon
from drivers.directories import first_closed, make_traversable
from drivers.environment import clean
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import PortBinding
from hostler.contract.names import bridge_name

LEASE_TIME = "24h"
RELEASE_SECONDS = 2
POLL_SECONDS = 0.02
USERS = ("dnsmasq", "nobody")
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class DhcpServer:
    """The server of `network_id`, its files in `directory`, which it alone uses."""

    def __init__(self, directory: Path, network_id: str) -> None:
        self._directory = directory
        self._bridge = bridge_name(network_id)
        self._hosts = directory / "hosts"
        self._leases = directory / "leases"
        self._daemon = Daemon("dnsmasq", "dnsmasq-base", directory / "pid")

    def serve(self, ports: list[PortBinding], *, new_bridge: bool = False) -> None:
        """Serve these ports, at least one, and no others. A server of a bridge that has been replaced hears nothing.

        Raises:
            RescheduleError: dnsmasq is missing or does not start.
        """
        arguments = self._arguments(ports[0])
        hosts = "".join(f"{_host_line(port)}\n" for port in ports)
        running = self._daemon.arguments()
        if running == arguments and not new_bridge:
            served = self._served()
            if _text(self._hosts) != hosts:
                self._write_hosts(hosts)
                self._daemon.signal(signal.SIGHUP)
            self._release_others(ports, served)
            return
        self._daemon.stop()
        self._prepare()
        self._write_hosts(hosts)
        self._forget_leases_of_others(ports)
        if complaint := self._daemon.start(*arguments):
            raise RescheduleError(f"dnsmasq does not start: {complaint}")

    def handle(self) -> int | None:
        """See `Daemon.handle`."""
        return self._daemon.handle()

    def stop(self) -> None:
        """End the server and remove its files."""
        self._daemon.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _arguments(self, port: PortBinding) -> list[str]:
        subnet = IPv4Interface(f"{port.ip}/{port.prefix}").network
        dns = ",".join(port.dns)
        return [
            "--conf-file=/dev/null",  # not the machine's own
            f"--user={_user()}",
            "--port=0",
            "--no-hosts",
            "--no-resolv",
            "--no-ping",
            "--quiet-dhcp",
            "--bind-interfaces",
            f"--interface={self._bridge}",
            "--except-interface=lo",
            "--dhcp-authoritative",
            f"--dhcp-range={subnet.network_address},static,{subnet.netmask},{LEASE_TIME}",
            f"--dhcp-lease-max={subnet.num_addresses}",
            f"--dhcp-hostsfile={self._hosts}",
            f"--dhcp-leasefile={self._leases}",
            f"--dhcp-option=option:router,{port.gateway}",
            f"--dhcp-option=option:mtu,{port.mtu}",
            f"--dhcp-option=option:dns-server{',' if dns else ''}{dns}",
        ]

    def _prepare(self) -> None:
        """A directory that dnsmasq may use after it has given up being root."""
        make_traversable(self._directory)
        if closed := first_closed(self._directory):
            raise RescheduleError(
                f"dnsmasq, which runs as {_user()}, cannot get through {closed}", remedy=f"chmod o+x {closed}"
            )
        self._leases.touch()
        shutil.chown(self._leases, _user())
        shutil.chown(self._directory, _user())  # it writes its lease file anew there

    def _write_hosts(self, text: str) -> None:
        durable.write_text(self._hosts, text, sync=False)
        self._hosts.chmod(0o644)

    def _release_others(self, ports: list[PortBinding], served: set[tuple[str, str]]) -> None:
        """Give back the leases of ports that have gone, so that their addresses may be leased to others.

        The server empties its lease file before it writes it anew: who reads it then misses some. So all that were
        `served` and have gone are released, and what is kept must be there again.
        """
        mine = {port.mac for port in ports}
        leased = self._leased()
        for mac, ip in sorted((served | leased.items()) - {(port.mac, port.ip) for port in ports}):
            with suppress(FileNotFoundError, subprocess.TimeoutExpired):  # then the restart does it
                command = ["dhcp_release", self._bridge, ip, mac]
                subprocess.run(command, capture_output=True, timeout=10, env=clean())
        deadline = time.monotonic() + RELEASE_SECONDS
        kept = leased.keys() & mine
        while not kept <= self._leased().keys() <= mine:
            if time.monotonic() > deadline:
                self._daemon.stop()
                self.serve(ports)
                return
            time.sleep(POLL_SECONDS)

    def _forget_leases_of_others(self, ports: list[PortBinding]) -> None:
        mine = {port.mac for port in ports}
        kept = [" ".join(lease) for lease in self._current_leases() if lease[1] in mine]
        self._leases.write_text("".join(f"{lease}\n" for lease in kept))

    def _served(self) -> set[tuple[str, str]]:
        """MAC and address of each port that was served before."""
        return {(mac, ip) for mac, ip, *_ in (line.split(",") for line in _text(self._hosts).splitlines())}

    def _leased(self) -> dict[str, str]:
        """The address of each MAC that holds a lease."""
        return {mac: ip for _, mac, ip, _, _ in self._current_leases()}

    def _current_leases(self) -> list[list[str]]:
        """Expiry, MAC, address, name and client ID ("*": none) of each."""
        return [line.split() for line in _text(self._leases).splitlines() if len(line.split()) == 5]


def _host_line(port: PortBinding) -> str:
    name = f",{port.hostname}" if HOSTNAME.fullmatch(port.hostname) else ""
    return f"{port.mac},{port.ip}{name}"


def _text(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def _user() -> str:
    """The least user that this machine has for dnsmasq."""
    for user in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(user).pw_name
    return "root"
