"""`hostler host failures`, and who is called."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.control import alarms
from hostler.cli.exits import Exit
from hostler.contract.host_work import Alarm, AlarmKind
from tests.cloud import LIMIT, Cloud
from tests.hostler.cli.conftest import Hostler
from tests.stage import eventually
from tests.workflows.test_host_failure import FAST, YES, configure, dies, known, looked, servers, watched


async def test_a_host_that_cannot_be_fenced_calls_a_person_once_and_is_shown_until_it_is_seen_to(
    hostler: Hostler, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "RETRY", replace(alarms.RETRY, initial_interval=FAST))
    calls = tmp_path / "calls"
    script = f'echo "$0 $HOSTLER_HOST_NAME: $1" >> {calls}; test $(wc -l < {calls}) = 2'  # the first one fails
    configure(cloud, ["/nowhere/fence"], alarm_command=["/bin/sh", "-c", script])
    never = await hostler("host", "failures")
    assert (never.exit_code, "nobody watches over the hosts" in never.stderr) == (Exit.NOT_FOUND, True)
    await servers(cloud, ("web", YES))
    handle = await watched(cloud)
    await looked(cloud)
    fine = await hostler("host", "failures", "-f", "value")
    assert (fine.exit_code, fine.stdout) == (Exit.DONE, ""), fine.output

    await dies(cloud, "sim-1")
    await eventually(lambda: calls.exists() and len(calls.read_text().splitlines()) == 2)
    [host] = (await known(cloud)).silent
    assert host.stuck_since
    again = Alarm(kind=AlarmKind.HOST_STUCK, since=host.stuck_since, message="again", host_id=host.id, host=host.name)
    assert await alarms.have_called(cloud.temporal, LIMIT, [again]) == [again.key]  # as a look that is repeated does
    await looked(cloud, 5)

    told = "host-stuck sim-1: host sim-1 is silent, and its servers are not evacuated: the fence command"
    assert [line.startswith(told) for line in calls.read_text().splitlines()] == [True, True]
    shown = await hostler("host", "failures", "-f", "value", "-c", "name", "-c", "state", "-c", "to_evacuate")
    assert (shown.exit_code, shown.stdout) == (Exit.ALARM, "sim-1 stuck 1\n"), shown.output
    assert "the runbook too-many-hosts-lost" in shown.stderr
    everything = json.loads((await hostler("host", "failures", "-f", "json")).stdout)
    assert (everything["alarm"], [host["name"] for host in everything["hosts"]]) == ("", ["sim-1"])

    configure(cloud, None, interval=timedelta(0))
    async with asyncio.timeout(LIMIT.total_seconds()):
        await handle.result()
    off = await hostler("host", "failures")
    assert (off.exit_code, "it is switched off" in off.stderr) == (Exit.NOT_FOUND, True)
