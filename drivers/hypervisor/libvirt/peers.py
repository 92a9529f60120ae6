"""Connections to another host's libvirt, by which a guest that has moved there is let run. All calls block."""

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import libvirt

from drivers.hypervisor.libvirt import migration_job
from drivers.hypervisor.libvirt.connection import one_line
from drivers.hypervisor.libvirt.events import run_event_loop
from hostler.contract.errors import HostlerError, RescheduleError, Unavailable
from hostler.contract.guests import MigrationReport

TLS_PORT = 16514
CONNECT_SECONDS = 5
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 2, 4
"""A host that does not answer for so long is taken for dead, and a call to it fails. TCP would wait for minutes."""
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST_NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
REMEDY = (
    "see that its libvirtd listens with TLS, that both hosts' certificates are in /etc/pki/libvirt and are still "
    "valid, and that no firewall is between: virsh --connect {uri} hostname"
)


def migration_uri(address: str) -> str:
    """The libvirt of the host at this address, as other hosts reach it.

    Raises:
        RescheduleError: that is no address.
    """
    return f"qemu+tls://{in_uri(address)}/system"


def in_uri(address: str) -> str:
    """An address as a URI has it. Another host names it, and a URI of libvirt's can say what programs to run here.

    Raises:
        RescheduleError: that is neither an IP address nor a host's name.
    """
    if HOST_NAME.fullmatch(address):  # an IPv4 address is one, too
        return address
    with suppress(ValueError):
        if (known := ipaddress.IPv6Address(address)).scope_id is None:  # a zone may be any text
            return f"[{known}]"
    raise RescheduleError(
        f"a host's address is an IP address or a name, not {address!r}",
        field="host.migration_address",
        value=address,
        remedy="set host.migration_address on the host that has this to its address in the network of the hosts",
    )


def refuse_loopback(address: str, trouble: str) -> None:
    """See that the `host.migration_address` of this host is not one that only the host itself can reach.

    Raises:
        RescheduleError: it is, and `trouble` what comes of it.
    """
    try:
        closed = ipaddress.ip_address(address).is_loopback
    except ValueError:
        closed = address == "localhost"
    if closed:
        raise RescheduleError(
            trouble,
            field="host.migration_address",
            value=address,
            remedy="set host.migration_address to this host's address in the network of the hosts",
        )


def connect(uri: str, refusal: type[HostlerError]) -> libvirt.virConnect:
    """A connection to another host's libvirt, which breaks when the host falls silent.

    Raises:
        refusal: it cannot be reached, or does not let this host in.
    """
    where = urlsplit(uri)
    try:
        # libvirt itself would wait for as long as TCP does.
        socket.create_connection((where.hostname or "", where.port or TLS_PORT), CONNECT_SECONDS).close()
        run_event_loop()
        connection = libvirt.open(uri)
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    except OSError as error:
        raise refusal(f"cannot connect to {uri}: {error}", remedy=REMEDY.format(uri=uri)) from error
    except libvirt.libvirtError as error:
        raise refusal(f"cannot connect to {uri}: {one_line(error)}", remedy=REMEDY.format(uri=uri)) from error
    return connection


class Peer:
    """The libvirt to which a guest goes. It is connected before, so that the guest does not stand still for that."""

    def __init__(self, address: str) -> None:
        self._uri = migration_uri(address)
        self._connection: libvirt.virConnect | None = None

    def open(self, refusal: type[HostlerError]) -> None:
        """Connect.

        Raises:
            refusal: it cannot be reached, or does not let this host in.
        """
        self._connection = connect(self._uri, refusal)

    def let_run(self, server_id: str) -> None:
        """Let the guest run that has moved there. A connection that was lost meanwhile is made once more.

        Raises:
            Unavailable: it cannot be said whether it runs there.
        """
        with suppress(libvirt.libvirtError):
            if self._connection is not None:
                return _let_run(self._connection, server_id)
        self._connection = connect(self._uri, Unavailable)
        try:
            _let_run(self._connection, server_id)
        except libvirt.libvirtError as error:
            raise Unavailable(
                f"the guest was handed over, and {self._uri} does not let it run: {one_line(error)}",
                remedy=f"look at it there: virsh domstate --reason {server_id}",
            ) from error

    def report(self, server_id: str) -> MigrationReport | None:
        """How the guest came there, if that libvirt says so."""
        with suppress(libvirt.libvirtError, HostlerError):
            if self._connection is not None:
                return migration_job.completed(self._connection.lookupByUUIDString(server_id))
        return None

    @property
    def lost(self) -> bool:
        """Whether that host has not answered for a while."""
        return self._connection is not None and not self._connection.isAlive()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection = None  # closed by its finaliser


def _let_run(connection: libvirt.virConnect, server_id: str) -> None:
    domain = connection.lookupByUUIDString(server_id)
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_PAUSED and reason != libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED:
        domain.resume()
        state, reason = domain.state()
    if state != libvirt.VIR_DOMAIN_RUNNING:
        raise Unavailable(
            f"the guest was handed over and does not run on its new host: state {state}, reason {reason}",
            remedy=f"look at it there: virsh domstate --reason {server_id}",
        )
