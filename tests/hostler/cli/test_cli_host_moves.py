"""`hostler host drain` and `hostler host evacuate`."""

import asyncio
import json

import pytest

from hostler.cli import host_moves
from hostler.cli.exits import Exit
from hostler.cli.output import Format
from hostler.contract.host_work import DrainResult
from tests.cloud import LIMIT, Cloud
from tests.hostler.cli.conftest import Hostler
from tests.workflows.conftest import StartCloud
from tests.workflows.test_drain import in_error, stopped, with_volume
from tests.workflows.test_host_failure import configure, dies


async def test_a_drain_is_watched_to_its_end(hostler: Hostler, cloud: Cloud) -> None:
    await stopped(cloud, "web")
    drained = await hostler("host", "drain", "sim-1", "--reason", "new memory", "--wait")
    assert drained.exit_code == Exit.DONE, drained.output
    assert "web: moved by confirm-resize to sim-2" in drained.stderr
    assert "host sim-1: 1 servers moved, 0 not" in drained.stderr
    assert "web" in drained.stdout

    status = await hostler("host", "drain", "sim-1", "--status", "-f", "json")
    progress = json.loads(status.stdout)
    assert (progress["done"], [one["state"] for one in progress["servers"]]) == (True, ["moved"])
    assert "1 moved" in (await hostler("host", "drain", "sim-1", "--status")).stdout


async def test_a_drain_that_leaves_a_server_fails(hostler: Hostler, cloud: Cloud) -> None:
    server = await stopped(cloud, "web")
    await (await cloud.client.servers.migrate(server.id)).result(LIMIT)
    drained = await hostler("host", "drain", "sim-1", "--skip", "--wait", "-f", "json")
    assert drained.exit_code == Exit.FAILED, drained.output
    assert json.loads(drained.stdout)["skipped"][0]["name"] == "web"


async def test_a_host_that_keeps_volumes_in_use_is_drained_and_must_stay_on(
    hostler: Hostler, start_cloud: StartCloud
) -> None:
    cloud = await start_cloud(volumes=True)
    server = await with_volume(cloud, "web", host="sim-1")
    volume = await cloud.client.volumes.show("data")

    drained = await hostler("host", "drain", "sim-1", "--wait")

    assert drained.exit_code == Exit.KEEPS, drained.output
    assert "host sim-1: 1 servers moved, 0 not" in drained.stderr
    assert "host sim-1 keeps 1 volumes that servers use" in drained.stderr
    assert "it must stay on" in drained.stderr
    [line] = [line for line in drained.stdout.splitlines() if volume.id in line]
    assert line.split() == [volume.id, "data", server.id, "web", volume.project]
    status = await hostler("host", "drain", "sim-1", "--status")
    assert (volume.id in status.stdout, "it must stay on" in status.stderr) == (True, True)
    again = await hostler("host", "drain", "sim-1", "--wait", "-f", "value")
    assert (again.exit_code, again.stdout.split()) == (Exit.KEEPS, ["-", "-", volume.id])
    as_json = await hostler("host", "drain", "sim-1", "--wait", "-f", "json")
    assert [one["volume_id"] for one in json.loads(as_json.stdout)["volumes"]] == [volume.id]


async def test_a_server_that_is_left_decides_over_volumes_that_are(hostler: Hostler, start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    in_error(cloud, await with_volume(cloud, "web", host="sim-1"))
    drained = await hostler("host", "drain", "sim-1", "--wait")
    assert drained.exit_code == Exit.FAILED, drained.output
    assert "it must stay on" in drained.stderr


async def test_a_drain_is_begun_looked_at_joined_and_cancelled(hostler: Hostler, cloud: Cloud) -> None:
    await stopped(cloud, "web")
    held = cloud.stage.hold("receive_disks")
    begun = await hostler("host", "drain", "sim-1")
    assert begun.exit_code == Exit.DONE, begun.output
    assert "hostler host drain sim-1 --status" in begun.stderr
    await held.reached.wait()
    assert "1 moving" in (await hostler("host", "drain", "sim-1", "--status")).stdout
    assert "joined: sim-1; its options stay as they are" in (await hostler("host", "drain", "sim-1")).stderr
    assert (await hostler("host", "drain", "sim-1", "--cancel")).exit_code == Exit.DONE
    held.go_on.set()
    waited = await hostler("host", "drain", "sim-1", "--wait")  # of the one that was cancelled, or of another
    assert waited.exit_code in (Exit.DONE, Exit.FAILED), waited.output


async def test_one_that_has_ended_cannot_be_cancelled(hostler: Hostler, cloud: Cloud) -> None:
    await stopped(cloud, "web")
    assert (await hostler("host", "drain", "sim-1", "--wait")).exit_code == Exit.DONE

    cancelled = await hostler("host", "drain", "sim-1", "--cancel")

    assert cancelled.exit_code == Exit.CONFLICT, cancelled.output
    assert "has ended" in cancelled.stderr


async def test_whoever_waits_for_one_that_is_cancelled_hears_that_what_has_moved_stays_there(
    hostler: Hostler, cloud: Cloud
) -> None:
    await stopped(cloud, "web")
    held = cloud.stage.hold("receive_disks")
    waiting = asyncio.ensure_future(hostler("host", "drain", "sim-1", "--wait"))
    await held.reached.wait()
    await (await cloud.client.hosts.draining("sim-1")).cancel()
    held.go_on.set()

    waited = await waiting

    assert waited.exit_code == Exit.FAILED, waited.output
    assert "servers that had moved stay where they are" in waited.stderr


async def test_one_that_was_accepted_and_failed_is_no_bad_usage(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted("web", host="sim-1")
    configure(cloud, ["/nowhere/fence"])
    await dies(cloud, "sim-1")

    evacuated = await hostler("host", "evacuate", "sim-1", "--wait")

    assert evacuated.exit_code == Exit.FAILED, evacuated.output
    assert "/nowhere/fence" in evacuated.stderr


async def test_what_makes_no_sense_is_refused(hostler: Hostler, cloud: Cloud) -> None:
    assert (await hostler("host", "drain", "sim-1", "--status", "--cancel")).exit_code == Exit.INVALID
    assert (await hostler("host", "drain", "sim-1", "--status", "--skip")).exit_code == Exit.INVALID
    assert (await hostler("host", "drain", "nowhere")).exit_code == Exit.NOT_FOUND
    assert (await hostler("host", "drain", "sim-1", "--status")).exit_code == Exit.NOT_FOUND
    up = await hostler("host", "evacuate", "sim-1", "--force")
    assert up.exit_code == Exit.CONFLICT
    assert "hostler host drain sim-1" in up.stderr


async def test_a_host_that_is_off_is_evacuated(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted("web", host="sim-1")
    configure(cloud, None)
    await dies(cloud, "sim-1")
    refused = await hostler("host", "evacuate", "sim-1")
    assert refused.exit_code == Exit.INVALID
    assert "--force" in refused.stderr

    evacuated = await hostler("host", "evacuate", "sim-1", "--force", "--wait")
    assert evacuated.exit_code == Exit.DONE, evacuated.output
    assert "web: moved by evacuate to sim-2" in evacuated.stderr


async def test_an_evacuation_that_runs_is_joined_and_its_servers_are_shown(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted("web", host="sim-1")
    configure(cloud, None)
    await dies(cloud, "sim-1")
    held = cloud.stage.hold("begin_evacuation")
    await hostler("host", "evacuate", "sim-1", "--force")
    await held.reached.wait()

    joined = await hostler("host", "evacuate", "sim-1", "--force")
    status = await hostler("host", "evacuate", "sim-1", "--status", "-f", "value")

    held.go_on.set()
    assert "joined: sim-1; it takes all servers now" in joined.stderr
    assert status.stdout.splitlines() == ["evacuates the servers", "-", "web moving"]


def test_a_drain_that_an_older_release_has_ended_does_not_mean_that_the_host_may_go_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = DrainResult.model_validate({"host_id": "h", "host": "sim-1"})
    host_moves._show(result, Format.TABLE)
    assert "does not say which volumes host sim-1 keeps" in " ".join(capsys.readouterr().err.split())
    assert host_moves._exit(result) is Exit.KEEPS
    assert host_moves._exit(result.model_copy(update={"volumes": []})) is Exit.DONE
