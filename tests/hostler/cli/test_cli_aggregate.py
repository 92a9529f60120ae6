"""`hostler aggregate`."""

import json

from hostler.cli.exits import Exit
from tests.cloud import Cloud
from tests.hostler.cli.conftest import Hostler


async def test_an_aggregates_life(hostler: Hostler, cloud: Cloud) -> None:
    made = await hostler("aggregate", "create", "ha", "--property", "hostler:evacuate=true", "--property", "rack=7")
    assert made.exit_code == Exit.DONE, made.output
    for host in ("sim-2", "sim-1", "sim-1"):
        assert (await hostler("aggregate", "add-host", "ha", host)).exit_code == Exit.DONE

    shown = json.loads((await hostler("aggregate", "show", "ha", "-f", "json")).stdout)
    assert (shown["hosts"], shown["metadata"]) == (["sim-1", "sim-2"], {"hostler:evacuate": "true", "rack": "7"})
    refused = await hostler("aggregate", "delete", "ha")
    assert refused.exit_code == Exit.CONFLICT
    assert "hostler aggregate remove-host ha sim-1" in refused.stderr

    await hostler("aggregate", "set", "ha", "--property", "rack=8", "--property", "hostler:evacuate=false")
    await hostler("aggregate", "unset", "ha", "--property", "rack", "--property", "nothing")
    for host in ("sim-1", "sim-2"):
        await hostler("aggregate", "remove-host", "ha", host)
    listed = await hostler("aggregate", "list", "-f", "value", "-c", "name", "-c", "hosts", "-c", "metadata")
    assert listed.stdout == "ha - hostler:evacuate=false\n"
    assert (await hostler("aggregate", "delete", "ha")).exit_code == Exit.DONE
    assert (await hostler("aggregate", "show", "ha")).exit_code == Exit.NOT_FOUND


async def test_what_makes_no_sense_is_refused(hostler: Hostler, cloud: Cloud) -> None:
    unclear = await hostler("aggregate", "create", "ha", "--property", "hostler:evacuate=perhaps")
    assert unclear.exit_code == Exit.INVALID
    assert "is neither true nor false" in unclear.stderr
    assert (await hostler("aggregate", "create", "ha")).exit_code == Exit.DONE
    assert (await hostler("aggregate", "create", "ha")).exit_code == Exit.CONFLICT
    assert (await hostler("aggregate", "set", "ha")).exit_code == Exit.INVALID
    assert (await hostler("aggregate", "set", "ha", "--property", "hostler:evacuate=")).exit_code == Exit.INVALID
    assert (await hostler("aggregate", "add-host", "ha", "nowhere")).exit_code == Exit.NOT_FOUND
    server = await hostler("server", "create", "web", "--flavor", "tiny", "--image", "demo", "--network", "net")
    assert server.exit_code == Exit.DONE, server.output
    refused = await hostler(
        *("server", "create", "web", "--flavor", "tiny", "--image", "demo", "--network", "net"),
        *("--property", "hostler:evacuation_priority=high"),
    )
    assert refused.exit_code == Exit.INVALID
    assert "is no integer" in refused.stderr
