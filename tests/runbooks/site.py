"""The place where an operator works: a shell from which the machines of a cloud of processes are reached.

`ssh MACHINE COMMAND` runs the command with that machine's environment. For want of systemd `systemctl` and `journalctl`
there are stand-ins, which start, stop and read the machine's real worker. `pip` is the real one, kept to the machine's
own directory and from the network. All else on the path is the real thing.
"""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hostler.settings import LibvirtSettings
from tests.processes.cloud import ProcessCloud
from tests.processes.process import Process

READY = {"hostler-control": "control worker ready", "hostler-host": "registered"}
INACTIVE = 3
"""What `systemctl is-active` ends with for a unit that does not run."""

SSH = """#!/bin/bash
. "$(dirname "$0")/$1.env"
exec bash -c "${*:2}"
"""
ASK = """#!/usr/bin/env python3
import json, os, pathlib, socket, sys
program = pathlib.Path(sys.argv[0])
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect(str(program.with_name("socket")))
    asked.sendall(json.dumps([os.environ["MACHINE"], program.name, *sys.argv[1:]]).encode() + b"\\n")
    answer = json.loads(asked.makefile().readline())
print(answer["text"], end="")
sys.exit(answer["code"])
"""
PIP = """#!/bin/bash
exec python -m pip "$1" --no-index --no-deps --no-build-isolation --upgrade --target "$PYTHONPATH" "${@:2}"
"""
PROGRAMS = {"ssh": SSH, "systemctl": ASK, "journalctl": ASK, "pip": PIP}


@dataclass
class Site:
    """A cloud and its machines: of each its one unit."""

    cloud: ProcessCloud
    directory: Path
    units: dict[str, tuple[str, Process]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        for name, text in PROGRAMS.items():
            program = self.directory / name
            program.write_text(text)
            program.chmod(0o755)

    async def run(self, line: str, variables: Mapping[str, str]) -> tuple[int, str]:
        """A line that the operator types: its exit code and all that it prints."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", line),
            env={**self._environment(), **variables},
            cwd=self.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
        path = f"{self.directory}:{Path(sys.executable).parent}:{ours['PATH']}"
        address = self.cloud.settings.temporal.address
        return ours | {"PATH": path, "HOSTLER_TEMPORAL__ADDRESS": address, "TEMPORAL_ADDRESS": address}

    def add(self, machine: str, unit: str, process: Process) -> None:
        """A machine, and what its one unit runs; from its next start on it has what was installed there."""
        self.units[machine] = (unit, process)
        packages = self.directory / f"{machine}.packages"
        packages.mkdir()
        process.environment = {**process.environment, "PYTHONPATH": str(packages)}
        exports = {"MACHINE": machine, "LIBVIRT_DEFAULT_URI": LibvirtSettings().uri, **process.environment}
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in exports.items())
        (self.directory / f"{machine}.env").write_text("".join(lines))

    async def answer(self, machine: str, program: str, *words: str) -> tuple[int, str]:
        """What systemctl and journalctl of a machine do."""
        unit, process = self.units[machine]
        if unit not in words:
            return 5, f"Unit {words[-1]} could not be found.\n"
        if program == "journalctl":
            return 0, process.end_of_log() + "\n"
        if words[0] in ("stop", "restart"):
            await asyncio.to_thread(process.stop)
        if words[0] in ("start", "restart"):
            process.start()
            await asyncio.to_thread(process.said, READY[unit], times=process.starts)
        if words[0] == "is-active":
            return (0, "active\n") if process.running else (INACTIVE, "inactive\n")
        return 0, ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one program of a machine."""
        code, text = await self.answer(*json.loads(await reader.readline()))
        writer.write(json.dumps({"code": code, "text": text}).encode() + b"\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def site(cloud: ProcessCloud, directory: Path) -> AsyncIterator[Site]:
    """The site of a cloud: control-1, control-2... and the hosts by their names."""
    place = Site(cloud, directory)
    for number, control in enumerate(cloud.controls, start=1):
        place.add(f"control-{number}", "hostler-control", control)
    for number, host in enumerate(cloud.hosts, start=1):
        place.add(f"sim-{number}-1", "hostler-host", host)
    async with await asyncio.start_unix_server(place.converse, directory / "socket"):
        yield place
