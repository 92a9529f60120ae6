"""One connection to libvirt, opened anew after libvirtd was restarted, and libvirt's errors told in ours.

No keepalive: the connection is a local socket, so a libvirtd that dies is noticed by the very call that it breaks.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from hostler.contract.errors import HostlerError, Unavailable

# Errors are raised as exceptions as well; without a handler, libvirt also prints them.
libvirt.registerErrorHandler(lambda _context, _error: None, None)

QEMU_PREFIX = re.compile(r"(\d{4}-\d\d-\d\dT\S+Z )?qemu-system-\w+: ")
REMEDY = "start it: systemctl start virtlogd libvirtd; the worker must be root or in the group libvirt"
LOST = {
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
}


class Connection:
    """The connection that all threads share; libvirt lets them."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._current: libvirt.virConnect | None = None

    def get(self) -> libvirt.virConnect:
        """A connection that answered just now.

        Raises:
            Unavailable: there is no libvirtd to connect to.
        """
        with self._lock:
            if self._current is None or not _answers(self._current):
                self._current = None
                with libvirt_errors(Unavailable):
                    self._current = libvirt.open(self._uri)
            return self._current

    def close(self) -> None:
        """Let go of the connection; the next `get` opens another."""
        with self._lock:
            self._current = None  # closed by its finaliser, after the last call that still uses it


def _answers(connection: libvirt.virConnect) -> bool:
    try:
        connection.getLibVersion()  # asks the daemon, unlike isAlive(), which only knows of calls made before
    except libvirt.libvirtError:
        return False
    return True


@contextmanager
def libvirt_errors(refusal: type[HostlerError]) -> Iterator[None]:
    """Raise what libvirt refuses as `refusal`, on one line.

    Raises:
        Unavailable: the connection was lost, or libvirt is busy: nothing is wrong with what was asked for.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC or error.get_error_code() in LOST:
            raise Unavailable(f"libvirt does not answer: {one_line(error)}", remedy=REMEDY) from error
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            raise Unavailable(f"libvirt is busy: {one_line(error)}") from error
        raise refusal(f"libvirt: {one_line(error)}") from error


@contextmanager
def ignoring(*codes: int) -> Iterator[None]:
    """Take libvirt's errors of these codes for success."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise


def one_line(error: libvirt.libvirtError) -> str:
    """libvirt's message; without what QEMU only warned of, if the message has all that QEMU said."""
    lines = [QEMU_PREFIX.sub("", line).strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and "warning:" not in line]
    return " ".join(telling or lines)
