"""Guests that come to a simulated host while they run: files in `<directory>/arriving`, one a server.

The host that they come to writes and removes them, the one that sends them, which may be another process, completes
them. Each change is made under a lock of the directory, which ends with the process that holds it, so that nothing is
sent into what is being removed, and nothing is lost that comes while it is taken in.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivers.hypervisor.simulated_guests import Record, Records, SimulatedGuest

SCHEME = "simulated://"


class SimulatedArrival(Record):
    """A guest that is to come; `guest` when it has, and `runs` when it is no more where it was."""

    guest: SimulatedGuest | None = None
    runs: bool = False


class Arrivals:
    """What comes to the host with this directory. None of the calls waits, but for the lock."""

    def __init__(self, host: Path) -> None:
        self._host = host.absolute()
        self._records = Records(self._host / "arriving", SimulatedArrival)
        self._guests = Records(self._host / "guests", SimulatedGuest)

    @classmethod
    def at(cls, uri: str) -> "Arrivals | None":
        """Those of the host that is called so; None when that is no simulated one."""
        directory = uri.removeprefix(SCHEME)
        return cls(Path(directory)) if uri.startswith(SCHEME) and directory.startswith("/") else None

    @property
    def uri(self) -> str:
        """How other hosts call this one."""
        return f"{SCHEME}{self._host}"

    def names(self) -> list[str]:
        """The servers of which something is here."""
        return self._records.names()

    def read(self, server_id: str) -> SimulatedArrival | None:
        """What is here of a server's; None when there is nothing, or it is not whole."""
        return self._records.read(server_id)

    def expect(self, arrival: SimulatedArrival) -> None:
        """Be ready for it; what has come already stays."""
        self._records.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if self._records.read(arrival.server_id) is None:
                self._records.write(arrival)

    def complete(self, guest: SimulatedGuest) -> bool:
        """The guest comes here, as this host's; False when it is not expected."""
        with self._found(guest.server_id) as arrival:
            if arrival is None:
                return False
            sent = guest.model_copy(update={"host_id": arrival.host_id})
            self._records.write(arrival.model_copy(update={"guest": sent}))
            return True

    def run(self, server_id: str) -> bool:
        """What has come may run; False when nothing has. What was let run before is among the host's guests by now."""
        with self._found(server_id) as arrival:
            if arrival is None:
                return self._guests.path(server_id).exists()
            if arrival.guest is None:
                return False
            self._records.write(arrival.model_copy(update={"runs": True}))
            return True

    @contextmanager
    def taking_in(self, server_id: str) -> Iterator[SimulatedArrival | None]:
        """What is here of a server's, and does not change meanwhile. What runs is no longer here afterwards."""
        with self._found(server_id) as arrival:
            yield arrival
            if arrival is not None and arrival.runs:
                self._records.remove(server_id)

    def refuse(self, server_id: str) -> None:
        """Expect it no longer, unless it has come."""
        with self._found(server_id) as arrival:
            if arrival is not None and arrival.guest is None:
                self._records.remove(server_id)

    def remove(self, server_id: str) -> None:
        """Expect it no longer, and forget what has come."""
        with self._found(server_id):
            self._records.remove(server_id)

    @contextmanager
    def _found(self, server_id: str) -> Iterator[SimulatedArrival | None]:
        if not self._records.path(server_id).exists():  # nearly always; and only this host would make it
            yield None
            return
        with self._alone():
            yield self._records.read(server_id)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Never to be taken twice: it would wait for itself."""
        handle = os.open(self._records.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
