"""Serves files over NBD, each by a qemu-nbd process of its own that outlives the worker. All calls block.

The truth is the process: its command line says which volume it serves and on which port. Its PID file only says where
to look, so that a recycled PID is never taken for ours. A record keeps the port, because guests reconnect to the
address that they know when a dead server is started again.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from drivers import durable
from hostler.contract.errors import RescheduleError

STOP_SECONDS = 10
POLL_SECONDS = 0.02
START_SECONDS = 60
NO_DIRECT_IO = "O_DIRECT"
PORT_TAKEN = "Address already in use"


@dataclass(frozen=True)
class Export:
    """A running server."""

    process: psutil.Process
    port: int


class NbdServers:
    """The qemu-nbd processes of one directory. `ports` are those that they may listen on, at `address`."""

    def __init__(self, directory: Path, address: str, ports: range) -> None:
        self._directory = directory
        self._address = address
        self._ports = ports

    def serve(self, name: str, file: Path) -> int:
        """Serve a raw file as the export `name`; the port, the old one if it had one and that is still free.

        Raises:
            RescheduleError: there is no qemu-nbd, no port, or it does not start.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        if running := self.find(name):
            self._record(name, running.port)
            return running.port
        for port in self._candidates(name):
            if self._start(name, file, port):
                self._record(name, port)
                return port
        raise RescheduleError(
            f"all ports from {self._ports.start} to {self._ports.stop - 1} of {self._address} are taken",
            remedy="end what listens there, or withdraw volumes that nobody uses",
        )

    def stop(self, name: str) -> None:
        """Stop serving `name` and forget its port."""
        if running := self.find(name):
            running.process.terminate()
            if not self._gone(name, STOP_SECONDS):
                running.process.kill()
                self._gone(name, STOP_SECONDS)
        self._pid_file(name).unlink(missing_ok=True)
        self._record_file(name).unlink(missing_ok=True)

    def find(self, name: str) -> Export | None:
        """The running server of `name`."""
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file(name).read_text()))
            command = process.cmdline()
            if command[:1] == ["qemu-nbd"] and f"--pid-file={self._pid_file(name)}" in command:
                port = next(a for a in command if a.startswith("--port=")).removeprefix("--port=")
                return Export(process, int(port))
        return None

    def wanted(self) -> list[str]:
        """The names that were served and not stopped, whether their server lives or not."""
        return sorted(file.stem for file in self._directory.glob("*.json"))

    def _candidates(self, name: str) -> Iterator[int]:
        """The ports to try: the one of before, then those that belong to nobody, not even to a dead server."""
        taken = {other: self._recorded(other) for other in self.wanted()}
        if before := taken.pop(name, None):
            yield before
        yield from (port for port in self._ports if port not in taken.values())

    def _start(self, name: str, file: Path, port: int) -> bool:
        """Start a server; False when the port is taken."""
        complaint = self._run(name, file, port, "--cache=none")
        if complaint and NO_DIRECT_IO in complaint:
            complaint = self._run(name, file, port, "--cache=writeback")
        if complaint and PORT_TAKEN not in complaint:
            raise RescheduleError(f"qemu-nbd does not start: {complaint}")
        return not complaint

    def _run(self, name: str, file: Path, port: int, cache: str) -> str:
        """What qemu-nbd complains of; empty when it runs. `--fork` lets it return when clients can connect."""
        command = ["qemu-nbd", "--fork", f"--pid-file={self._pid_file(name)}", "--persistent", "--shared=0"]
        command += [f"--bind={self._address}", f"--port={port}", f"--export-name={name}"]
        command += ["--format=raw", "--discard=unmap", cache, str(file)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_SECONDS
            )
        except FileNotFoundError as error:
            raise RescheduleError(
                "qemu-nbd is not installed on this host", remedy="install the package qemu-utils"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise RescheduleError(f"qemu-nbd has not started within {START_SECONDS} s") from error
        return done.stderr.strip() or "no reason given" if done.returncode else ""

    def _gone(self, name: str, seconds: float) -> bool:
        """Wait until the server has ended. A zombie has: whose child it is must not matter."""
        deadline = time.monotonic() + seconds
        while self.find(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _record(self, name: str, port: int) -> None:
        if self._recorded(name) != port:
            durable.write_text(self._record_file(name), json.dumps({"port": port}))

    def _recorded(self, name: str) -> int | None:
        with suppress(FileNotFoundError, ValueError, KeyError):
            return int(json.loads(self._record_file(name).read_text())["port"])
        return None

    def _record_file(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"
