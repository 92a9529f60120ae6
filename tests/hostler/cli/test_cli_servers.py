"""`hostler server`, as scripts and people use it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from uuid import uuid4

from hostler.cli.exits import Exit
from hostler.contract.servers import BootRequest, Server
from hostler.contract.states import VmState
from tests.hostler.cli.conftest import Hostler
from tests.hostler.peers import Catalogue, server_of


def server(name: str, vm_state: VmState = VmState.ACTIVE) -> Server:
    """A server for the catalogue."""
    server_id = str(uuid4())
    request = BootRequest(server_id=server_id, request_id=server_id, name=name, flavor="tiny", image="demo")
    return server_of(request, vm_state)


async def test_create_waits_and_prints_the_server(hostler: Hostler, catalogue: Catalogue) -> None:
    server_id = str(uuid4())
    done = await hostler(
        *("server", "create", "web", "--flavor", "tiny", "--image", "demo", "--id", server_id),
        *("--property", "role=web", "--wait", "-f", "json"),
    )
    assert done.exit_code == Exit.DONE, done.output
    shown = json.loads(done.stdout)
    assert (shown["id"], shown["status"], shown["metadata"]) == (server_id, "ACTIVE", {"role": "web"})
    assert "boot web: spawn done on node-1" in done.stderr


async def test_create_tells_why_it_failed(hostler: Hostler, catalogue: Catalogue) -> None:
    failed = await hostler("server", "create", "web", "--flavor", "broken", "--image", "demo", "--wait")
    assert failed.exit_code == Exit.FAILED
    assert failed.stdout == ""
    for part in ("BuildFailed", "node-2", "pinned CPUs are taken", "RamFilter", "64 MiB free, 512 wanted"):
        assert part in failed.stderr


async def test_what_fails_after_it_was_accepted_has_failed(hostler: Hostler, catalogue: Catalogue) -> None:
    failed = await hostler("server", "create", "web", "--flavor", "unsuited", "--image", "demo", "--wait")
    assert failed.exit_code == Exit.FAILED
    assert "InvalidRequest" in failed.stderr


async def test_create_is_refused_at_once(hostler: Hostler, catalogue: Catalogue) -> None:
    refused = await hostler("server", "create", "web", "--flavor", "missing", "--image", "demo")
    assert refused.exit_code == Exit.NOT_FOUND
    assert "remedy: list them" in refused.stderr


async def test_bad_requests_never_reach_the_cloud(hostler: Hostler) -> None:
    for words in (
        ["--flavor", "tiny"],
        ["--flavor", "tiny", "--image", "demo", "--block-device", "uuid"],
        ["--flavor", "tiny", "--image", "demo", "--block-device", "boot_index=first"],
        ["--flavor", "tiny", "--image", "demo", "--network", "net=a,ip=10.0"],
        ["--flavor", "tiny", "--image", "demo", "--property", "role"],
        ["--flavor", "tiny", "--boot-from-volume", "10"],
        ["--flavor", "tiny", "--image", "demo", "-c", "nope"],
        ["--image", "demo"],
    ):
        refused = await hostler("server", "create", "web", *words)
        assert refused.exit_code == Exit.INVALID, words
        assert refused.stderr
        assert refused.stdout == ""


async def test_list_and_show(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("[red]bad[/red]\x1b[0m", VmState.ERROR)]
    table = await hostler("server", "list")
    assert table.exit_code == Exit.DONE
    for part in (catalogue.servers[0].id, "ACTIVE", "private=10.0.0.7", "node-1", r"[red]bad[/red]\x1b[0m"):
        assert part in table.stdout

    values = await hostler("server", "list", "-f", "value", "-c", "name", "-c", "host")
    assert values.stdout.splitlines()[0] == "web node-1"

    fault = await hostler("server", "show", catalogue.servers[1].id)
    assert "claim_resources" in fault.stdout
    assert "RamFilter" in fault.stdout


async def test_names_must_be_somebodys_and_only_ones(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("web")]
    ambiguous = await hostler("server", "show", "web")
    assert ambiguous.exit_code == Exit.CONFLICT
    assert all(s.id in ambiguous.stderr for s in catalogue.servers)
    assert (await hostler("server", "show", "db")).exit_code == Exit.NOT_FOUND


async def test_delete_takes_several_and_reports_on_each(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("db")]
    done = await hostler("server", "delete", "web", "db", "--wait")
    assert done.exit_code == Exit.DONE, done.output
    assert "delete web: spawn done" in done.stderr
    assert "delete db: spawn done" in done.stderr

    some = await hostler("server", "delete", "web", "mail")
    assert some.exit_code == Exit.NOT_FOUND
    assert "delete of web accepted" in some.stderr
    assert "no server is named 'mail'" in some.stderr


async def test_a_busy_server(hostler: Hostler, catalogue: Catalogue) -> None:
    server_id = str(uuid4())
    await hostler("server", "create", "web", "--flavor", "slow", "--image", "demo", "--id", server_id)
    assert (await hostler("server", "reboot", "--hard", server_id)).exit_code == Exit.CONFLICT
    deleted = await hostler("server", "delete", "--wait", server_id)
    assert deleted.exit_code == Exit.DONE
    assert f"boot {server_id}: spawn undone" in deleted.stderr
    followed = await hostler("server", "follow", server_id)
    assert f"delete {server_id}: spawn done" in followed.stderr


async def test_events_and_console(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web")]
    events = await hostler("server", "events", "web", "-f", "value", "-c", "step", "-c", "status", "-c", "host")
    assert events.stdout == "spawn done node-1\n"
    console = await hostler("server", "console-log", "web")
    assert console.stdout == f"login of {catalogue.servers[0].id}\n"


async def test_an_interrupted_wait_says_that_the_operation_goes_on(
    temporal_server: str, namespace: str, catalogue: Catalogue
) -> None:
    words = ["server", "create", "web", "--flavor", "slow", "--image", "demo", "--wait"]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("hostler"),
        *words,
        env={
            **os.environ,
            "HOSTLER_TEMPORAL__ADDRESS": temporal_server,
            "HOSTLER_TEMPORAL__NAMESPACE": namespace,
        },
        stderr=asyncio.subprocess.PIPE,
        # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert b"spawn running" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = (await process.stderr.read()).decode()
    assert await process.wait() == Exit.INTERRUPTED
    assert "the boot of web goes on" in rest
    assert "Traceback" not in rest
