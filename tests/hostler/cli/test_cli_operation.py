"""`hostler operation`, and how the other commands show what holds."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from hostler.cli.exits import Exit
from hostler.contract.servers import StepStatus
from tests.cloud import LIMIT, Cloud
from tests.hostler.cli.conftest import Hostler
from tests.hostler.held import ON_FIRE, held_boot
from tests.workflows.test_live_migrate import takes_long


async def test_what_holds_is_listed_with_the_reason(hostler: Hostler, cloud: Cloud) -> None:
    boot = await held_boot(cloud)

    table = await hostler("operation", "list", "--held")
    assert table.exit_code == Exit.DONE, table.output
    for part in (boot.server_id, "web", "boot", "spawn", "sim-1", "the disk is on fire", "retry, move, give-up"):
        assert part in table.stdout

    values = await hostler("operation", "list", "-f", "value", "-c", "name", "-c", "held", "-c", "overdue")
    assert values.stdout == "web yes no\n"
    [whole] = json.loads((await hostler("operation", "list", "--held", "-f", "json")).stdout)
    assert whole["hold"]["step"] == "spawn"
    assert (await hostler("operation", "list", "--overdue", "-f", "value")).stdout == ""


async def test_a_hold_is_shown_with_the_commands_that_end_it(hostler: Hostler, cloud: Cloud) -> None:
    boot = await held_boot(cloud)

    shown = await hostler("server", "show", "web")
    for part in ("boot holds at spawn on sim-1", "the disk is on fire", "gives up by itself at"):
        assert part in shown.stdout
    for command in ("retry", "move", "give-up"):
        assert f"hostler operation {command} {boot.server_id}" in shown.stdout
    listed = await hostler("server", "list", "-f", "value", "-c", "status", "-c", "hold")
    assert "BUILD boot holds at spawn on sim-1" in listed.stdout
    assert "held at spawn" in (await hostler("server", "list")).stdout


async def test_follow_shows_the_hold_and_goes_on(hostler: Hostler, cloud: Cloud) -> None:
    boot = await held_boot(cloud)

    retried = await hostler("operation", "retry", "web", "--note", "it is out", "--by", "ann", "--wait")

    assert retried.exit_code == Exit.DONE, retried.output
    assert "boot web: activate done" in retried.stderr
    assert (await boot.result(LIMIT)).status == "ACTIVE"
    events = await hostler("server", "events", "web", "-f", "value", "-c", "step", "-c", "note")
    assert "retry by ann: it is out" in events.stdout


async def test_a_move_names_its_host(hostler: Hostler, cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    moved = await hostler("operation", "move", "web", "--host", "sim-2")
    assert moved.exit_code == Exit.DONE, moved.output
    assert "boot of web takes the decision: move at spawn" in moved.stderr
    assert (await boot.result(LIMIT)).host == "sim-2"


async def test_giving_up_and_cancelling_are_no_failures(hostler: Hostler, cloud: Cloud) -> None:
    boot = await held_boot(cloud)
    given_up = await hostler("operation", "give-up", boot.server_id, "--wait")
    assert given_up.exit_code == Exit.DONE, given_up.output
    assert "spawn undone" in given_up.stderr

    other = await held_boot(cloud, "other")
    cancelled = await hostler("operation", "cancel", "other", "--wait")
    assert cancelled.exit_code == Exit.DONE, cancelled.output
    await cloud.failure(other)


async def test_a_live_migration_is_forced_to_its_end(hostler: Hostler, cloud: Cloud) -> None:
    await takes_long(cloud)
    server = await cloud.booted(host="sim-1")
    migration = await cloud.client.servers.live_migrate(server.id)
    await cloud.reached(migration, "migrate_guest")

    forced = await hostler("operation", "force-complete", "web", "--by", "ann", "--wait")

    assert forced.exit_code == Exit.DONE, forced.output
    assert "live-migrate web: finish_live_migration done" in forced.stderr
    assert (await migration.result(LIMIT)).host == "sim-2"
    notes = await hostler("server", "events", "web", "-f", "value", "-c", "step", "-c", "note")
    assert "forced to its end by ann" in notes.stdout


async def test_on_failure_is_said_per_request(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted()
    for command, step in (("stop", "stop_guest"), ("start", "start_guest"), ("reboot", "reboot_guest")):
        cloud.stage.fail(step, ON_FIRE)
        begun = await hostler("server", command, "web", "--on-failure", "hold")
        assert begun.exit_code == Exit.DONE, begun.output
        operation = await cloud.client.servers.operation("web")
        async for progress in operation.follow():
            if progress.hold is not None:
                break
        assert (await hostler("operation", "retry", "web", "--wait")).exit_code == Exit.DONE
    cloud.stage.fail("stop_guest", ON_FIRE)
    failed = await hostler("server", "stop", "web", "--on-failure", "give-up", "--wait")
    assert failed.exit_code == Exit.FAILED
    words = ("create", "new", "--flavor", "tiny", "--image", "demo", "--on-failure", "hold", "--max-attempts", "1")
    cloud.stage.fail("spawn", ON_FIRE)
    assert (await hostler("server", *words)).exit_code == Exit.DONE
    async for progress in (await cloud.client.servers.operation("new")).follow():
        if progress.hold is not None:
            break
    assert any(step.status is StepStatus.HELD for step in progress.steps)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["retry", "nobody"], Exit.NOT_FOUND, "no server is named 'nobody'"),
        (["retry", "web"], Exit.CONFLICT, "no operation runs on server web"),
        (["cancel", "web"], Exit.CONFLICT, "hostler operation list"),
        (["force-complete", "web"], Exit.CONFLICT, "no operation runs on server web"),
        (["force-complete", "nobody"], Exit.NOT_FOUND, "no server is named 'nobody'"),
        (["retry", "web", "--note", "a\nb"], Exit.INVALID, "note"),
        (["retry", "web", "--host", "sim-1"], Exit.INVALID, "--host"),
        (["list", "--limit", "0"], Exit.INVALID, "--limit"),
        (["list", "-c", "colour"], Exit.INVALID, "there is no 'colour'"),
    ],
)
async def test_wrong_words_get_clear_answers(
    words: list[str], code: Exit, complaint: str, hostler: Hostler, cloud: Cloud
) -> None:
    await cloud.booted()
    refused = await hostler("operation", *words)
    assert (refused.exit_code, refused.stdout) == (code, ""), refused.output
    assert complaint in refused.stderr


async def test_the_shell_completes_servers_whose_operations_hold(cloud: Cloud) -> None:
    await held_boot(cloud)
    await cloud.booted("well")
    shell = {
        "_HOSTLER_COMPLETE": "complete_bash",
        "COMP_WORDS": "hostler operation retry w",
        "COMP_CWORD": "3",
        "HOSTLER_TEMPORAL__ADDRESS": cloud.settings.temporal.address,
        "HOSTLER_TEMPORAL__NAMESPACE": cloud.settings.temporal.namespace,
        "HOSTLER_STATE_DIR": str(cloud.settings.state_dir),
    }
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("hostler"), env={**os.environ, **shell}, stdout=asyncio.subprocess.PIPE
    )
    completed, _ = await process.communicate()
    assert completed.decode().split() == ["web"]
