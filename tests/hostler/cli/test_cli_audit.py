"""`hostler audit`."""

import json
from uuid import uuid4

from hostler.cli.exits import Exit
from tests.cloud import Cloud
from tests.hostler.cli.conftest import Hostler
from tests.workflows.test_audit import on_host, plant


async def test_a_world_in_order(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted()
    audited = await hostler("audit")
    assert audited.exit_code == Exit.DONE, audited.output
    assert "2 hosts audited, 0 found, 0 healed" in audited.stderr


async def test_what_is_found_is_shown_and_healed_only_when_asked(hostler: Hostler, cloud: Cloud) -> None:
    server = await cloud.booted()
    await on_host(cloud, "sim-1", "stop_guest", {"server_id": server.id, "timeout": 0})
    unknown = str(uuid4())
    await plant(cloud, "sim-2", unknown)

    looked = await hostler("audit", "--dry-run", "--host", "sim-1")
    assert looked.exit_code == Exit.FOUND, looked.output
    for part in ("power-state", server.id, "its guest is shutdown", "sim-1"):
        assert part in looked.stdout
    assert "1 hosts audited, 1 found, 0 healed" in looked.stderr

    healed = await hostler("audit", "--heal", "-f", "json")
    assert healed.exit_code == Exit.FOUND
    report = json.loads(healed.stdout)
    assert report["counts"] == {"power-state": 1, "unknown-server": 1}
    assert {one["kind"]: one["healed"] for one in report["findings"]} == {"power-state": True, "unknown-server": False}
    assert (await cloud.client.servers.show(server.id)).status == "SHUTOFF"

    columns = ("-c", "kind", "-c", "subject", "-c", "healed")
    again = await hostler("audit", "--heal", "-f", "value", *columns)
    assert again.stdout == f"unknown-server {unknown} no\n"


async def test_a_host_that_is_down_is_said_to_be_unaudited(hostler: Hostler, cloud: Cloud) -> None:
    cloud.alive.discard(cloud.machine("sim-2").id)
    audited = await hostler("audit")
    assert audited.exit_code == Exit.UNAVAILABLE
    assert "not audited: host sim-2: it is down" in audited.stderr


async def test_what_makes_no_sense_is_refused(hostler: Hostler, cloud: Cloud) -> None:
    assert (await hostler("audit", "--last", "--heal")).exit_code == Exit.INVALID
    nowhere = await hostler("audit", "--host", "nowhere")
    assert nowhere.exit_code == Exit.NOT_FOUND
    assert "hostler host list" in nowhere.stderr
    assert (await hostler("audit", "--last")).exit_code == Exit.NOT_FOUND
