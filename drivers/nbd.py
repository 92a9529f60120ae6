"""Serves files over NBD, each by a qemu-nbd process of its own. All calls block.

A record keeps each export's port, because guests reconnect to the address that they know when a dead server is
started again.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from drivers import durable
from drivers.daemons import Daemon
from hostler.contract.errors import RescheduleError
from hostler.private_files import write_private

NO_DIRECT_IO = "O_DIRECT"
PORT_TAKEN = "Address already in use"
PORT_ARGUMENT = "--port="
PSK_FILE = "keys.psk"  # QEMU's name for it
PSK_USER = "hostler"
TLS_ID = "tls0"


class NbdServers:
    """The qemu-nbd processes of one directory. `ports` are those that they may listen on, at `address`."""

    def __init__(self, directory: Path, address: str, ports: range) -> None:
        self._directory = directory
        self._address = address
        self._ports = ports

    def serve(self, name: str, file: Path, *, keys: Path | None = None) -> int:
        """Serve a raw file as the export `name`; the port, the old one if it had one and that is still free.

        `keys`: only to be read, and only by clients that know a key of `keys.psk` in this directory, over TLS.

        Raises:
            RescheduleError: there is no qemu-nbd, no port, or it does not start.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        if port := self.port(name):
            self._record(name, port)
            return port
        for port in self._candidates(name):
            if self._start(name, file, port, keys):
                self._record(name, port)
                return port
        raise RescheduleError(
            f"all ports from {self._ports.start} to {self._ports.stop - 1} of {self._address} are taken",
            remedy="end what listens there, or withdraw exports that nobody uses",
        )

    def stop(self, name: str) -> None:
        """Stop serving `name` and forget its port."""
        self._daemon(name).stop()
        self._record_file(name).unlink(missing_ok=True)

    def port(self, name: str) -> int | None:
        """The port on which `name` is being served now."""
        arguments = self._daemon(name).arguments() or []
        return next((int(a.removeprefix(PORT_ARGUMENT)) for a in arguments if a.startswith(PORT_ARGUMENT)), None)

    def handle(self, name: str) -> int | None:
        """See `Daemon.handle`: of the process that serves `name`."""
        return self._daemon(name).handle()

    def wanted(self) -> list[str]:
        """The names that were served and not stopped, whether their server lives or not."""
        return sorted(file.stem for file in self._directory.glob("*.json"))

    def started(self) -> list[str]:
        """The names that have a record or a process, also when a crash came between the two."""
        return sorted({*self.wanted(), *(file.stem for file in self._directory.glob("*.pid"))})

    def _candidates(self, name: str) -> Iterator[int]:
        """The ports to try: the one of before, then those that belong to nobody, not even a dead server."""
        taken = {other: self._recorded(other) for other in self.wanted()}
        if before := taken.pop(name, None):
            yield before
        yield from (port for port in self._ports if port not in taken.values())

    def _start(self, name: str, file: Path, port: int, keys: Path | None) -> bool:
        """Start a server; False when the port is taken."""
        how = _over_tls(keys) if keys else ["--discard=unmap"]
        complaint = self._run(name, file, port, "--cache=none", *how)
        if NO_DIRECT_IO in complaint:
            complaint = self._run(name, file, port, "--cache=writeback", *how)
        if complaint and PORT_TAKEN not in complaint:
            raise RescheduleError(f"qemu-nbd does not start: {complaint}")
        return not complaint

    def _run(self, name: str, file: Path, port: int, *how: str) -> str:
        """What qemu-nbd complains of. `--shared=0`: any number of clients, since a live migration needs two."""
        where = [f"--bind={self._address}", f"{PORT_ARGUMENT}{port}", f"--export-name={name}"]
        always = ["--fork", "--persistent", "--shared=0", "--format=raw"]
        return self._daemon(name).start(*where, *always, *how, str(file))

    def _daemon(self, name: str) -> Daemon:
        return Daemon("qemu-nbd", "qemu-utils", self._directory / f"{name}.pid")

    def _record(self, name: str, port: int) -> None:
        if self._recorded(name) != port:
            durable.write_text(self._record_file(name), json.dumps({"port": port}))

    def _recorded(self, name: str) -> int | None:
        with suppress(FileNotFoundError, ValueError, KeyError):
            return int(json.loads(self._record_file(name).read_text())["port"])
        return None

    def _record_file(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def psk_credentials(keys: Path, side: Literal["server", "client"]) -> str:
    """QEMU's `--object` for TLS with the pre-shared keys in the directory `keys`. Both sides call it tls0."""
    user = f",username={PSK_USER}" if side == "client" else ""
    return f"tls-creds-psk,id={TLS_ID},dir={option(str(keys))},endpoint={side}{user}"


def write_key(keys: Path, key: str) -> None:
    """Make the directory `keys`, for its owner only, with this pre-shared key (hexadecimal)."""
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    write_private(keys / PSK_FILE, f"{PSK_USER}:{key}\n")


def read_key(keys: Path) -> str | None:
    """The key that was written there."""
    with suppress(FileNotFoundError):
        return (keys / PSK_FILE).read_text().strip().removeprefix(f"{PSK_USER}:")
    return None


def option(value: str) -> str:
    """A value in one of QEMU's comma-separated lists of options."""
    return value.replace(",", ",,")


def _over_tls(keys: Path) -> list[str]:
    return ["--read-only", "--object", psk_credentials(keys, "server"), f"--tls-creds={TLS_ID}"]
