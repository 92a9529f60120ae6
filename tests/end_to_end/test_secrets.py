"""No secret leaves its place: secrets that can be recognised are planted in a cloud, and looked for everywhere.

Places where they must be are named; finding one anywhere else is a failure. That the search does find what is there,
`tests/workflows/test_leaks.py` shows.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import temporalio.client

from hostler import Client
from hostler.contract.errors import HostlerError, InvalidRequest
from hostler.contract.servers import Server
from hostler.settings import Settings, load
from models import Database
from tests.conftest import free_port
from tests.end_to_end.conftest import DEMO, HOSTLER
from tests.leaks import Leaks, cloud_processes, files, raw_records, readable_payloads, rows
from workers.dev import hosts_up

READY = 120
LAST_LINES = 60
PLANTED = ("user data", "database password", "key", "token", "somebody's own")
OTHERS = stat.S_IRWXO


@dataclass
class Planted:
    """A cloud with secrets in it."""

    directory: Path
    settings: Settings
    supervisor: psutil.Process
    secrets: dict[str, bytes]
    host: str

    @property
    def config(self) -> Path:
        return self.directory / "hostler.toml"

    @property
    def state(self) -> Path:
        return self.settings.state_dir

    def processes(self, *words: str) -> list[psutil.Process]:
        """The supervisor's children whose command line has all of these words."""
        return [child for child in self.supervisor.children() if set(words) <= set(child.cmdline())]


@pytest.fixture(
    params=[
        pytest.param("simulated", marks=pytest.mark.postgres),
        pytest.param("libvirt", marks=[pytest.mark.real, pytest.mark.postgres]),
    ]
)
def planted(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Planted]:
    """`hostler dev` on PostgreSQL, with a host that works and `sim-1`, whose guests never start."""
    found = {name: secrets.token_hex(20).encode() for name in PLANTED}
    with tempfile.TemporaryDirectory(prefix="hostler-secrets-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        config = write_config(directory, postgres_url, found)
        real = request.param == "libvirt"
        log = directory / "dev.log"
        words = ["dev", "--simulated", "1" if real else "2", *([] if real else ["--no-libvirt"])]
        with log.open("w") as output:
            dev = subprocess.Popen(
                [HOSTLER, "--config", config, *words],
                stdout=output,
                stderr=output,
                env=os.environ | {"OS_PASSWORD": found["somebody's own"].decode()},
            )
        settings = load(config)
        try:
            try:
                asyncio.run(ready(settings, dev))
            except (AssertionError, TimeoutError):
                pytest.fail("\n".join(log.read_text().splitlines()[-LAST_LINES:]))
            key = (settings.state_dir / "encryption.keys").read_text().strip().partition(":")[2]
            found["key"] = base64.b64decode(key)
            yield Planted(directory, settings, psutil.Process(dev.pid), found, "real" if real else "sim-2")
        finally:
            with contextlib.suppress(HostlerError):  # one that never came up
                asyncio.run(emptied(settings))
            dev.send_signal(signal.SIGTERM)
            dev.wait(timeout=60)


def write_config(directory: Path, url: str, found: dict[str, bytes]) -> Path:
    """A settings file with the database's password, and a file with a token."""
    tokens = directory / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"alice:{found['token'].decode()}\n")
    config = directory / "hostler.toml"
    config.touch(0o600)
    # The cluster trusts everybody on its socket, so that any password will do.
    with_password = url.replace("postgres@", f"postgres:{found['database password'].decode()}@")
    config.write_text(
        f"""
state_dir = "{directory / "state"}"
[temporal]
address = "127.0.0.1:{free_port()}"
ui_url = "http://127.0.0.1:{free_port()}"
[database]
url = "{with_password}"
[codec]
tokens_file = "{tokens}"
[log]
level = "debug"
[host]
name = "real"
[[host.simulated.faults]]
host = "sim-1"
call = "spawn"
kind = "error"
times = -1
"""
    )
    return config


async def ready(settings: Settings, dev: "subprocess.Popen[bytes]") -> None:
    """Return when both hosts are up."""
    waiting = asyncio.create_task(hosts_up(settings, 2))
    async with asyncio.timeout(READY):
        while not waiting.done():
            assert dev.poll() is None
            await asyncio.wait({waiting}, timeout=0.2)
    waiting.result()


async def emptied(settings: Settings) -> None:
    """Delete what a test that failed has left: guests and networks are on the machine, not in the directory."""
    async with await Client.connect(settings) as client:
        for server in await client.servers.list():
            await (await client.servers.delete(server.id)).result()


async def live(planted: Planted) -> tuple[Server, list[str]]:
    """A boot, one that fails, a reboot, a deleted server. The server that is left, and all that a client was told."""
    user_data = b"#!/bin/sh\n# " + planted.secrets["user data"] + b"\n"
    told = []
    async with await Client.connect(planted.settings) as client:
        await client.flavors.create("tiny", vcpus=1, ram_mib=128, disk_gib=1)
        await client.networks.create("net", cidr="10.233.9.0/24")
        await client.images.create("demo", DEMO)

        async def boot(name: str, host: str) -> Server:
            wanted: dict[str, Any] = {
                "flavor": "tiny",
                "image": "demo",
                "networks": ["net"],
                "host": host,
                "max_attempts": 1,
            }
            return await (await client.servers.boot(name, user_data=user_data, **wanted)).result()

        kept = await boot("kept", planted.host)
        with pytest.raises(HostlerError) as failed:
            await boot("doomed", "sim-1")
        told.append(failed.value.detail.model_dump_json())
        with pytest.raises(InvalidRequest) as refused:
            await client.servers.boot("refused", flavor="tiny", user_data=planted.secrets["user data"].decode() + "!")
        told.append(refused.value.detail.model_dump_json())
        await (await client.servers.reboot(kept.id, hard=True)).result()
        gone = await boot("gone", planted.host)
        await (await client.servers.delete(gone.id)).result()
        for server in await client.servers.list(deleted=True):
            shown = await client.servers.show(server.id)
            told.append(shown.model_dump_json())
            told.extend(event.model_dump_json() for event in await client.servers.events(server.id))
        assert {json.loads(one).get("status") for one in told} >= {"ACTIVE", "ERROR", "DELETED"}
    return kept, told


async def test_planted_secrets_are_found_nowhere(planted: Planted) -> None:
    server, told = await live(planted)
    leaks = Leaks(planted.secrets)
    for text in told:
        leaks.look("told to a client", text.encode())
    await look_into_temporal(leaks, planted)
    look_into_the_database(leaks, planted)
    look_into_files(leaks, planted, server)
    look_at_processes(leaks, planted)
    look_at_commands(leaks, planted, server)
    assert leaks.found == []
    assert leaks.looked_at > 500, "this is no empty search"
    assert open_files(planted) == []


async def look_into_temporal(leaks: Leaks, planted: Planted) -> None:
    """All it keeps, read as it has it."""
    temporal = planted.settings.temporal
    client = await temporalio.client.Client.connect(temporal.address, namespace=temporal.namespace)
    kinds, readable = set(), []
    async for place, message in raw_records(client):
        kinds.add(place.partition(":")[0])
        leaks.look(f"Temporal: {place}", message.SerializeToString())
        readable += [f"{place}{path}" for path in readable_payloads(message)]
    assert kinds >= {"server", "host", "image", "activity list_servers"}
    assert readable == [], "every payload is encrypted, secret or not"


def look_into_the_database(leaks: Leaks, planted: Planted) -> None:
    """Every row. What must be there is, encrypted."""
    database = Database(planted.settings.database_url)
    try:
        found = list(rows(database))
    finally:
        database.close()
    assert any(b"sealed:dev-1:" in row for table, row in found if table == "server")
    for table, row in found:
        leaks.look(f"database: {table}", row)


def look_into_files(leaks: Leaks, planted: Planted, server: Server) -> None:
    """Everything on disk: state, databases, logs."""
    allowed = {
        planted.config: ["database password"],
        planted.directory / "tokens": ["token"],
        planted.state / "encryption.keys": ["key"],
    }
    drives = [file for file in files(planted.state) if "config" in file.name and server.id in str(file)]
    assert len(drives) == (planted.host == "real"), "a real guest has a config drive"
    allowed |= {drive: ["user data"] for drive in drives}
    assert any(file.name == "temporal.db" for file in files(planted.state))
    for file in files(planted.directory):
        leaks.look(str(file), file.read_bytes(), allowed.get(file, []))


def look_at_processes(leaks: Leaks, planted: Planted) -> None:
    """Command lines and environments of everything that runs for the cloud."""
    every = cloud_processes(planted.supervisor.pid, directory=planted.directory)
    assert len(every) >= 5
    trusted = {child.pid for child in planted.processes("worker", "control")} | {planted.supervisor.pid}
    for process in every:
        with contextlib.suppress(psutil.Error):
            leaks.look(f"command line of {process.name()}", " ".join(process.cmdline()).encode())
            shown = json.dumps(process.environ()).encode()
            leaks.look(f"environment of {process}", shown, ["somebody's own"] if process.pid in trusted else [])
    for child in planted.processes("worker", "host") + planted.processes("worker", "codec"):
        given = load_as(child)
        assert given.database.url is None, "a host cannot even find the database"


def load_as(process: psutil.Process) -> Settings:
    """The settings that a process was given."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HOSTLER_")]:
            patch.delenv(name)
        for name, value in process.environ().items():
            if name.startswith("HOSTLER_"):
                patch.setenv(name, value)
        return load()


def look_at_commands(leaks: Leaks, planted: Planted, server: Server) -> None:
    """What an operator is shown."""
    for words in (["config", "show"], ["config", "show", "-f", "json"], ["key", "list"], ["server", "show", server.id]):
        shown = subprocess.run([HOSTLER, "--config", planted.config, *words], capture_output=True, check=True)
        leaks.look(f"hostler {' '.join(words)}", shown.stdout + shown.stderr)
    if planted.host == "real":
        domain = subprocess.run(
            ["virsh", "-c", planted.settings.host.libvirt.uri, "dumpxml", "--security-info", f"hostler-{server.id}"],
            capture_output=True,
            check=True,
        )
        leaks.look("domain XML", domain.stdout)


def open_files(planted: Planted) -> list[str]:
    """The files with secrets or tenants' content that others can read, and those that others can change."""
    found = []
    for file in files(planted.directory):
        mode = file.stat().st_mode
        # Those of simulated hosts have no content, and `host` is the host's UUID.
        guests = "guests" in file.parts and "simulated" not in file.parts and file.name != "host"
        private = guests or file.suffix in {".db", ".keys", ".toml"} or ".db-" in file.name
        if mode & stat.S_IWOTH or (private and mode & OTHERS):
            found.append(f"{file} {stat.filemode(mode)}")
    return found
