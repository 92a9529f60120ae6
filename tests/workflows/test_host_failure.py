"""A host that fails: it is fenced and its servers are built elsewhere, or nothing is done, and a person is told why."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import WorkflowHandle

import activities.control.host_work
import workflows.fencing
import workflows.silences
import workflows.watch_hosts
from hostler.client import HostWork
from hostler.contract.errors import InvalidRequest, InvalidState, NotFound, Unavailable
from hostler.contract.host_work import WATCH_HOSTS, HostFailureResult, WatchState
from hostler.contract.names import host_failure_workflow_id
from hostler.contract.servers import OperationName, Server
from hostler.settings import HostFailureSettings, OperationSettings
from models import Allocation, Host, now
from models import Server as Row
from tests.cloud import LIMIT, Cloud
from tests.stage import eventually
from tests.workflows.conftest import StartCloud
from tests.workflows.test_drain import names, outcome
from tests.workflows.test_hold import BROKEN
from workers.watch import ensure_watch

FAST = timedelta(seconds=0.2)
YES, NO = {"hostler:evacuate": "true"}, {"hostler:evacuate": "false"}


@pytest.fixture(autouse=True)
def fencing_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits two seconds, and then four, learns nothing more."""
    at_once = replace(workflows.fencing.FENCE_RETRY, initial_interval=FAST)
    monkeypatch.setattr(workflows.fencing, "FENCE_RETRY", at_once)


@pytest.fixture
def fenced(tmp_path: Path) -> Path:
    """The file in which the fence command writes down whom it has fenced."""
    return tmp_path / "fenced"


def fence_command(file: Path, *, status: int = 0) -> list[str]:
    """A program that fences hosts, or not."""
    script = file.with_name("fence")
    script.write_text(f'#!/bin/sh\necho "$1 $2 $HOSTLER_HOST_NAME" >> {file}\necho "no power"\nexit {status}\n')
    script.chmod(0o755)
    return [str(script)]


def fencings(file: Path) -> list[str]:
    """What the command was run with, each time."""
    return file.read_text().splitlines() if file.exists() else []


def configure(cloud: Cloud, command: list[str] | None, **settings: object) -> None:
    """Let the control worker watch closely, and not wait for long."""
    cloud.settings.temporal.heartbeat_interval = timedelta(seconds=0.1)
    values = {"interval": FAST, "silence": timedelta(seconds=1), "fence_command": command, **settings}
    cloud.settings.host_failure = HostFailureSettings.model_validate(values)


async def dies(cloud: Cloud, name: str) -> None:
    """The host's machine is off."""
    cloud.alive.discard(cloud.machine(name).id)
    await cloud.stop_host(name)


async def watched(cloud: Cloud) -> WorkflowHandle[object, object]:
    """The watch, which runs."""
    await ensure_watch(cloud.temporal, cloud.settings.host_failure)
    return cloud.temporal.get_workflow_handle(WATCH_HOSTS)


async def known(cloud: Cloud) -> WatchState:
    """What the watch knows."""
    state: WatchState = await cloud.temporal.get_workflow_handle(WATCH_HOSTS).query("state", result_type=WatchState)
    return state


async def looked(cloud: Cloud, times: int = 3) -> None:
    """Return when the watch has looked so many more times."""
    before = cloud.stage.names().count("look_at_hosts")
    await eventually(lambda: cloud.stage.names().count("look_at_hosts") >= before + times)


async def alarmed(cloud: Cloud) -> str:
    """The watch's alarm, once there is one."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not (state := await known(cloud)).alarm:  # noqa: ASYNC110 - it is about the workflow
            await asyncio.sleep(0.1)
    return state.alarm


async def begun(cloud: Cloud, name: str) -> HostWork[HostFailureResult]:
    """The host's failure, once the watch has begun it."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            try:
                return await cloud.client.hosts.evacuation(name)
            except NotFound:
                await asyncio.sleep(0.1)


async def servers(cloud: Cloud, *wanted: tuple[str, dict[str, str]], host: str = "sim-1") -> Sequence[Server]:
    """Servers with this metadata on the host."""
    return [await cloud.booted(name, host=host, metadata=metadata) for name, metadata in wanted]


def evacuations(cloud: Cloud) -> list[str]:
    """The servers of which an evacuation began, in order."""
    began = [one.workflow_id or "" for one in cloud.stage.played if one.name == "begin_evacuation"]
    return list(dict.fromkeys(one.removeprefix("server:") for one in began))


# By an operator.


async def test_a_host_that_was_fenced_is_evacuated_by_an_operator(cloud: Cloud, fenced: Path) -> None:
    [server] = await servers(cloud, ("web", NO))
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")

    result = await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)

    assert (outcome(result), result.complete, result.fenced) == ({"moved": ["web"]}, True, True)
    assert (result.moved[0].operation, result.moved[0].to) == (OperationName.EVACUATE, "sim-2")
    host = await cloud.client.hosts.show("sim-1")
    assert (host.down_since is not None, host.fenced) == (True, True)
    assert fencings(fenced) == [f"sim-1 {host.id} sim-1"]
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("ACTIVE", "sim-2")


async def test_an_operator_may_say_that_the_host_is_off(cloud: Cloud) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, None)
    await dies(cloud, "sim-1")
    with pytest.raises(InvalidRequest) as caught:
        await cloud.client.hosts.evacuate("sim-1")
    assert (caught.value.detail.field, "--force" in str(caught.value.remedy)) == ("host_failure.fence_command", True)

    result = await (await cloud.client.hosts.evacuate("sim-1", force=True)).result(LIMIT)

    assert (outcome(result), result.fenced) == ({"moved": ["web"]}, False)
    assert not (await cloud.client.hosts.show("sim-1")).fenced


async def test_a_host_that_answers_is_not_evacuated(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    with pytest.raises(InvalidState, match="sim-1 answers") as caught:
        await cloud.client.hosts.evacuate("sim-1")
    assert "hostler host drain sim-1" in str(caught.value.remedy)
    # Nor when its heartbeats are lost, and only it itself says that it is there.
    cloud.alive.discard(cloud.machine("sim-1").id)
    with pytest.raises(InvalidState, match="sim-1 answers"):
        await cloud.client.hosts.evacuate("sim-1", force=True)
    assert fencings(fenced) == []
    assert (await cloud.client.hosts.show("sim-1")).down_since is None


async def test_when_fencing_fails_nothing_is_evacuated_and_it_can_be_asked_again(cloud: Cloud, fenced: Path) -> None:
    [server] = await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced, status=3))
    await dies(cloud, "sim-1")

    failed = await cloud.client.hosts.evacuate("sim-1")
    with pytest.raises(Unavailable, match=r"status 3: no power") as caught:
        await failed.result(LIMIT)

    assert "--force" in str(caught.value.remedy)
    assert len(fencings(fenced)) == 3
    assert (await cloud.client.hosts.show("sim-1")).down_since is None
    assert (await cloud.client.servers.show(server.id)).host == "sim-1"

    configure(cloud, fence_command(fenced))
    assert outcome(await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)) == {"moved": ["web"]}


async def test_a_fence_command_that_hangs_is_ended(cloud: Cloud, fenced: Path) -> None:
    configure(cloud, ["sleep"], fence_timeout=timedelta(seconds=0.3))
    cloud.settings.host_failure.fence_command = ["/bin/sh", "-c", f"sleep 60; echo late > {fenced}"]
    await servers(cloud, ("web", {}))
    await dies(cloud, "sim-1")

    with pytest.raises(Unavailable, match="has not ended within"):
        await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)

    assert fencings(fenced) == []


async def test_what_cannot_be_evacuated_is_listed_with_the_reason(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("fine", {}), ("moved", {}))
    moved = next(one for one in await cloud.client.servers.list() if one.name == "moved")
    other = await cloud.booted("back", host="sim-2")
    await (await cloud.client.servers.migrate(other.id)).result(LIMIT)
    configure(cloud, fence_command(fenced))
    assert moved.host == "sim-1"
    await dies(cloud, "sim-1")

    result = await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)

    assert outcome(result) == {"moved": ["fine", "moved"], "failed": ["back"]}
    assert "VERIFY_RESIZE" in result.failed[0].reason


async def test_an_evacuation_that_fails_waits_for_no_decision_whatever_the_setting_says(
    start_cloud: StartCloud, fenced: Path
) -> None:
    """Held, it would have the place of the others, and the host would count as lost for a day."""
    cloud = await start_cloud(operations=OperationSettings(on_failure="hold"))
    priority = "hostler:evacuation_priority"
    await servers(cloud, ("stuck", {priority: "2"}), ("fine", {}))
    configure(cloud, fence_command(fenced))
    cloud.stage.fail("spawn", BROKEN)
    await dies(cloud, "sim-1")

    result = await (await cloud.client.hosts.evacuate("sim-1", parallel=1)).result(LIMIT)

    assert outcome(result) == {"failed": ["stuck"], "moved": ["fine"]}
    assert "no host can take the server" in result.failed[0].reason


async def test_servers_of_higher_priority_go_first(cloud: Cloud, fenced: Path) -> None:
    priority = "hostler:evacuation_priority"
    low, high, middle = await servers(cloud, ("low", {priority: "-1"}), ("high", {priority: "10"}), ("middle", {}))
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")

    await (await cloud.client.hosts.evacuate("sim-1", parallel=1)).result(LIMIT)

    assert evacuations(cloud) == [high.id, middle.id, low.id]


def same_name(cloud: Cloud, **values: object) -> Host:
    """The row of another host, of the same name as sim-1."""
    with cloud.database.write() as session:
        row = session.get_one(Host, cloud.machine("sim-1").id).model_dump()
        other = Host.model_validate(row | {"id": str(uuid4()), "machine_id": None} | values)
        session.add(other)
        session.flush()
        return Host.model_validate(other.model_dump())


@pytest.mark.parametrize("what", ["alive", "newer", "machine"])
async def test_a_host_is_not_fenced_when_another_has_its_name(cloud: Cloud, fenced: Path, what: str) -> None:
    """A machine that was installed anew, say: the command would power that off."""
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    host_id = cloud.machine("sim-1").id
    later = now() + timedelta(seconds=1)
    if what == "machine":
        with cloud.database.write() as session:
            session.get_one(Host, host_id).machine_id = "the-machine"
        same_name(cloud, name="renamed", machine_id="the-machine", registered_at=later)
    elif what == "newer":
        same_name(cloud, name="SIM-1", registered_at=later)
    else:
        cloud.alive.add(same_name(cloud).id)

    with pytest.raises(InvalidRequest, match="would be powered off") as caught:
        await (await cloud.client.hosts.evacuate(host_id)).result(LIMIT)

    assert f"hostler host evacuate {host_id} --force" in str(caught.value.remedy)
    assert fencings(fenced) == []
    result = await (await cloud.client.hosts.evacuate(host_id, force=True)).result(LIMIT)
    assert outcome(result) == {"moved": ["web"]}


async def test_an_older_host_of_the_same_name_that_is_gone_is_no_obstacle(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    same_name(cloud, registered_at=now() - timedelta(days=9))

    result = await (await cloud.client.hosts.evacuate(cloud.machine("sim-1").id)).result(LIMIT)

    assert (outcome(result), result.fenced) == ({"moved": ["web"]}, True)


async def test_a_name_that_looks_like_an_option_is_not_given_to_the_command(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    with cloud.database.write() as session:
        session.get_one(Host, cloud.machine("sim-1").id).name = "--all"
    with pytest.raises(InvalidRequest, match="for an option"):
        await (await cloud.client.hosts.evacuate(cloud.machine("sim-1").id)).result(LIMIT)
    assert fencings(fenced) == []


async def test_heartbeats_that_are_older_than_the_fencing_do_not_mean_that_the_host_is_back(
    cloud: Cloud, fenced: Path
) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("declare_down")
    await dies(cloud, "sim-1")
    failure = await cloud.client.hosts.evacuate("sim-1")
    await held.reached.wait()
    cloud.alive.add(cloud.machine("sim-1").id)
    held.go_on.set()
    await eventually(lambda: cloud.stage.names().count("declare_down") >= 2)

    cloud.alive.discard(cloud.machine("sim-1").id)

    result = await failure.result(LIMIT)
    assert (outcome(result), result.fenced, len(fencings(fenced))) == ({"moved": ["web"]}, True, 1)


async def test_a_host_that_is_heard_for_long_after_it_was_fenced_is_a_matter_for_people(
    cloud: Cloud, fenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities.control.host_work, "LATE", timedelta(0))
    [server] = await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("declare_down")
    await dies(cloud, "sim-1")
    failure = await cloud.client.hosts.evacuate("sim-1")
    await held.reached.wait()
    cloud.alive.add(cloud.machine("sim-1").id)
    held.go_on.set()

    with pytest.raises(Unavailable, match="was fenced, and is heard all the same") as caught:
        await failure.result(LIMIT)

    assert "right machine" in str(caught.value.remedy)
    assert (await cloud.client.servers.show(server.id)).host == "sim-1"


async def test_a_host_that_has_registered_since_it_was_fenced_is_back(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("declare_down")
    await dies(cloud, "sim-1")
    failure = await cloud.client.hosts.evacuate("sim-1")
    await held.reached.wait()
    cloud.alive.add(cloud.machine("sim-1").id)
    await cloud.start_host("sim-1")
    held.go_on.set()

    result = await failure.result(LIMIT)

    assert (result.moved, result.stopped) == ([], "it has come back, and is left alone")


async def test_a_server_that_lands_on_the_host_meanwhile_is_evacuated_too(
    start_cloud: StartCloud, fenced: Path
) -> None:
    """As one does whose live migration was handed over to the host before it died."""
    cloud = await start_cloud(hosts=3)
    [web] = await servers(cloud, ("web", {}))
    [lands] = await servers(cloud, ("lands", {}), host="sim-3")
    sim_1, sim_3 = (cloud.machine(name).id for name in ("sim-1", "sim-3"))
    operation = str(uuid4())
    with cloud.database.write() as session:  # on its way, with an allocation on the target
        session.get_one(Row, lands.id).operation_id = operation
        own = session.get_one(Allocation, (lands.id, sim_3, False))
        session.add(Allocation.model_validate(own.model_dump() | {"host_id": sim_1}))
        own.former = True
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    failure = await cloud.client.hosts.evacuate("sim-1")
    await eventually(lambda: cloud.stage.names().count("next_move") >= 3)
    assert (await cloud.client.servers.show(lands.id)).host == "sim-3"

    with cloud.database.write() as session:  # it ends there
        row = session.get_one(Row, lands.id)
        row.host_id, row.operation_id = sim_1, None
        session.delete(session.get_one(Allocation, (lands.id, sim_3, True)))

    assert outcome(await failure.result(LIMIT)) == {"moved": ["lands", "web"]}
    assert evacuations(cloud) == [web.id, lands.id]


async def test_at_the_end_it_looks_whether_there_are_new_ones(start_cloud: StartCloud, fenced: Path) -> None:
    cloud = await start_cloud(hosts=3)
    await servers(cloud, ("web", {}))
    [late] = await servers(cloud, ("late", {}), host="sim-3")
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    held = cloud.stage.hold("begin_evacuation")
    failure = await cloud.client.hosts.evacuate("sim-1")
    await held.reached.wait()
    lands_on_sim_1(cloud, late)
    held.go_on.set()

    assert outcome(await failure.result(LIMIT)) == {"moved": ["late", "web"]}


def lands_on_sim_1(cloud: Cloud, server: Server) -> None:
    """Let the server, of sim-3, be on sim-1, as if it had come there."""
    sim_1, sim_3 = (cloud.machine(name).id for name in ("sim-1", "sim-3"))
    with cloud.database.write() as session:
        session.get_one(Row, server.id).host_id = sim_1
        own = session.get_one(Allocation, (server.id, sim_3, False))
        session.add(Allocation.model_validate(own.model_dump() | {"host_id": sim_1}))
        session.delete(own)


# By itself.


async def test_what_is_left_on_a_host_that_is_down_is_evacuated_when_it_can_be(
    start_cloud: StartCloud, fenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without fencing it anew."""
    cloud = await start_cloud(hosts=3)
    monkeypatch.setattr(workflows.silences, "FIRST", timedelta(seconds=1))
    [late, stays] = await servers(cloud, ("late", YES), ("stays", NO), host="sim-3")
    configure(cloud, fence_command(fenced))
    await dies(cloud, "sim-1")
    assert outcome(await (await cloud.client.hosts.evacuate("sim-1")).result(LIMIT)) == {}
    await watched(cloud)
    await looked(cloud)
    lands_on_sim_1(cloud, late)
    lands_on_sim_1(cloud, stays)

    await eventually(lambda: evacuations(cloud) == [late.id])

    assert outcome(await (await cloud.client.hosts.evacuation("sim-1")).result(LIMIT)) == {"moved": ["late"]}
    assert len(fencings(fenced)) == 1
    await looked(cloud)
    assert (await known(cloud)).left == []


async def test_when_all_hosts_are_silent_it_is_rather_we_who_are_cut_off(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced), max_hosts=9)
    await watched(cloud)
    await looked(cloud)
    await dies(cloud, "sim-1")
    await dies(cloud, "sim-2")

    await alarmed(cloud)
    await looked(cloud)

    state = await known(cloud)
    assert "no host is heard at all" in state.alarm
    assert [(host.name, host.servers, host.begun) for host in state.silent] == [("sim-1", 1, None), ("sim-2", 0, None)]
    assert fencings(fenced) == []


async def test_a_silent_host_without_servers_counts(start_cloud: StartCloud, fenced: Path) -> None:
    cloud = await start_cloud(hosts=3)
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced))
    await watched(cloud)
    await looked(cloud)
    await dies(cloud, "sim-1")
    await dies(cloud, "sim-2")

    assert "2 hosts are lost at once (sim-1, sim-2)" in await alarmed(cloud)
    assert fencings(fenced) == []


async def test_a_silent_host_is_evacuated_by_policy(cloud: Cloud, fenced: Path) -> None:
    stays, goes, follows = await servers(cloud, ("stays", NO), ("goes", YES), ("follows", {}))
    aggregate = await cloud.client.aggregates.create("ha", metadata=YES)
    await cloud.client.aggregates.add_host("ha", "sim-1")
    assert (aggregate.hosts, aggregate.metadata) == ([], YES)
    configure(cloud, fence_command(fenced))
    await watched(cloud)
    await looked(cloud)
    await dies(cloud, "sim-1")

    result = await (await begun(cloud, "sim-1")).result(LIMIT)

    assert (names(result.moved), result.complete, result.fenced) == (["follows", "goes"], True, True)
    assert (await cloud.client.servers.show(stays.id)).host == "sim-1"
    assert {(await cloud.client.servers.show(one.id)).host for one in (goes, follows)} == {"sim-2"}
    await looked(cloud)
    assert (await known(cloud)).silent == []


async def test_what_a_server_is_told_after_its_boot_is_policy_too(cloud: Cloud, fenced: Path) -> None:
    stays, goes, first = await servers(cloud, ("stays", YES), ("goes", {}), ("first", NO))
    await cloud.client.servers.set(stays.id, {"hostler:evacuate": None})
    await cloud.client.servers.set(goes.id, YES)
    await cloud.client.servers.set(first.id, YES | {"hostler:evacuation_priority": "10"})
    configure(cloud, fence_command(fenced), parallel=1)
    await watched(cloud)
    await looked(cloud)
    await dies(cloud, "sim-1")

    result = await (await begun(cloud, "sim-1")).result(LIMIT)

    assert (names(result.moved), result.complete, result.fenced) == (["first", "goes"], True, True)
    assert evacuations(cloud) == [first.id, goes.id]
    assert (await cloud.client.servers.show(stays.id)).host == "sim-1"


async def test_nothing_is_done_where_no_policy_says_so(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", {}))
    configure(cloud, fence_command(fenced), silence=timedelta(0))
    await watched(cloud)
    await dies(cloud, "sim-1")

    await looked(cloud, 5)

    state = await known(cloud)
    assert [(host.name, host.servers, host.wanted, host.begun) for host in state.silent] == [("sim-1", 1, 0, None)]
    assert fencings(fenced) == []


async def test_a_host_that_is_disabled_is_down_on_purpose(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced), silence=timedelta(0))
    await cloud.client.hosts.disable("sim-1", "new memory")
    await dies(cloud, "sim-1")
    await watched(cloud)

    await looked(cloud, 5)

    assert (await known(cloud)).silent == []


async def test_when_too_many_hosts_are_lost_nothing_is_evacuated(start_cloud: StartCloud, fenced: Path) -> None:
    cloud = await start_cloud(hosts=3)
    for host in ("sim-1", "sim-2"):
        await servers(cloud, (f"on-{host}", YES), host=host)
    configure(cloud, fence_command(fenced))
    await watched(cloud)
    await looked(cloud)
    for name in ("sim-1", "sim-2"):
        await cloud.stop_host(name)
    cloud.alive -= {cloud.machine(name).id for name in ("sim-1", "sim-2")}

    alarm = await alarmed(cloud)
    await looked(cloud)

    assert "2 hosts are lost at once (sim-1, sim-2), and at most 1 may be" in alarm
    assert fencings(fenced) == []
    for name in ("sim-1", "sim-2"):
        with pytest.raises(NotFound):
            await cloud.client.hosts.evacuation(name)

    # One comes back, and the other is lost alone.
    cloud.alive.add(cloud.machine("sim-2").id)
    await cloud.start_host("sim-2")
    assert names((await (await begun(cloud, "sim-1")).result(LIMIT)).moved) == ["on-sim-1"]
    assert not (await known(cloud)).alarm


async def test_hosts_that_fail_one_after_the_other_are_a_matter_for_people(
    start_cloud: StartCloud, fenced: Path
) -> None:
    """As where what is evacuated takes its next host along."""
    cloud = await start_cloud(hosts=3)
    await servers(cloud, ("web", YES))
    await servers(cloud, ("other", YES), host="sim-2")
    configure(cloud, fence_command(fenced))
    await watched(cloud)
    await looked(cloud)
    await dies(cloud, "sim-1")
    await (await begun(cloud, "sim-1")).result(LIMIT)
    await looked(cloud)
    await dies(cloud, "sim-2")

    assert "2 hosts are lost within 1:00:00 (sim-1, sim-2), and at most 1 may be" in await alarmed(cloud)

    await looked(cloud)
    assert len(fencings(fenced)) == 1
    with pytest.raises(NotFound):
        await cloud.client.hosts.evacuation("sim-2")


async def test_a_host_that_returns_before_it_was_fenced_is_left_alone(cloud: Cloud, fenced: Path) -> None:
    [server] = await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("fence_host")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await held.reached.wait()

    cloud.alive.add(cloud.machine("sim-1").id)
    await cloud.start_host("sim-1")
    held.go_on.set()
    result = await (await cloud.client.hosts.evacuation("sim-1")).result(LIMIT)

    assert (result.moved, result.fenced, result.stopped) == ([], False, "it has come back, and is left alone")
    assert fencings(fenced) == []
    assert (await cloud.client.servers.show(server.id)).host == "sim-1"


async def test_an_operator_who_joins_what_the_watch_began_has_all_servers_evacuated(cloud: Cloud, fenced: Path) -> None:
    goes, stays = await servers(cloud, ("goes", YES), ("stays", NO))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("begin_evacuation")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await held.reached.wait()

    joined = await cloud.client.hosts.evacuate("sim-1")

    assert (joined.joined, joined.run_id) == (True, (await begun(cloud, "sim-1")).run_id)
    held.go_on.set()
    result = await joined.result(LIMIT)
    assert (outcome(result), result.complete) == ({"moved": ["goes", "stays"]}, True)
    assert evacuations(cloud) == [goes.id, stays.id]


async def test_an_operator_who_joins_while_the_last_servers_are_listed_is_heard(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("goes", YES), ("stays", NO))
    configure(cloud, fence_command(fenced))
    evacuating = cloud.stage.hold("begin_evacuation")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await evacuating.reached.wait()
    listed = cloud.stage.hold("servers_of_host", afterwards=True)
    evacuating.go_on.set()
    await listed.reached.wait()

    joined = await cloud.client.hosts.evacuate("sim-1")

    assert joined.joined
    listed.go_on.set()
    assert outcome(await joined.result(LIMIT)) == {"moved": ["goes", "stays"]}


async def test_who_joins_and_says_that_the_host_is_off_is_believed_when_fencing_fails(
    cloud: Cloud, fenced: Path
) -> None:
    await servers(cloud, ("goes", YES), ("stays", NO))
    configure(cloud, fence_command(fenced, status=1))
    held = cloud.stage.hold("fence_host")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await held.reached.wait()

    joined = await cloud.client.hosts.evacuate("sim-1", force=True)

    assert joined.joined
    held.go_on.set()
    result = await joined.result(LIMIT)
    assert (outcome(result), result.complete, result.fenced) == ({"moved": ["goes", "stays"]}, True, False)
    assert len(fencings(fenced)) == 3


async def test_who_joins_before_the_host_is_fenced_and_says_that_it_is_off_spares_the_fencing(
    cloud: Cloud, fenced: Path
) -> None:
    await servers(cloud, ("goes", YES))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("host_answers")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await held.reached.wait()

    joining = asyncio.create_task(cloud.client.hosts.evacuate("sim-1", force=True))
    await asked(cloud, await begun(cloud, "sim-1"))
    held.go_on.set()

    result = await (await joining).result(LIMIT)
    assert (outcome(result), result.fenced) == ({"moved": ["goes"]}, False)
    assert fencings(fenced) == []


async def asked(cloud: Cloud, work: HostWork[HostFailureResult]) -> None:
    """Return when somebody has asked for the work that runs already, whether he was answered or not."""
    handle = cloud.temporal.get_workflow_handle(host_failure_workflow_id(work.host_id), run_id=work.run_id)
    async with asyncio.timeout(LIMIT.total_seconds()):
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_execution_update_accepted_event_attributes"):
                return


async def test_who_joins_what_comes_to_nothing_is_not_told_that_all_is_done(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced))
    held = cloud.stage.hold("fence_host")
    await watched(cloud)
    await dies(cloud, "sim-1")
    await held.reached.wait()
    joined = await cloud.client.hosts.evacuate("sim-1", force=True)

    cloud.alive.add(cloud.machine("sim-1").id)
    await cloud.start_host("sim-1")
    held.go_on.set()

    result = await joined.result(LIMIT)
    assert (result.spared, result.complete, result.stopped) == (True, False, "it has come back, and is left alone")


async def test_a_failed_fencing_is_told_and_not_repeated_until_the_host_returns(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced, status=1))
    await watched(cloud)
    await dies(cloud, "sim-1")
    with pytest.raises(Unavailable):
        await (await begun(cloud, "sim-1")).result(LIMIT)

    await looked(cloud, 8)

    [host] = (await known(cloud)).silent
    assert "status 1" in host.stuck
    assert len(fencings(fenced)) == 3

    cloud.alive.add(cloud.machine("sim-1").id)
    await cloud.start_host("sim-1")
    await looked(cloud)
    assert (await known(cloud)).silent == []


async def test_the_time_in_which_nobody_looked_is_no_silence(cloud: Cloud, fenced: Path) -> None:
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced), silence=timedelta(hours=1))
    handle = await watched(cloud)
    await dies(cloud, "sim-1")
    await looked(cloud)
    [before] = (await known(cloud)).silent

    await cloud.stop_control()
    await cloud.start_control()
    await looked(cloud)

    [after] = (await known(cloud)).silent
    assert after.since == before.since  # a moment without a worker is no interruption; see test_silences.py
    await handle.cancel()


async def test_the_watch_ends_when_the_settings_say_so(cloud: Cloud) -> None:
    configure(cloud, None)
    handle = await watched(cloud)
    await looked(cloud)
    configure(cloud, None, interval=timedelta(0))
    async with asyncio.timeout(LIMIT.total_seconds()):
        await handle.result()
    await ensure_watch(cloud.temporal, cloud.settings.host_failure)


async def test_what_the_watch_remembers_outlives_its_runs(
    cloud: Cloud, fenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows.watch_hosts, "LOOKS", 2)
    await servers(cloud, ("web", YES))
    configure(cloud, fence_command(fenced), silence=timedelta(seconds=3))
    await dies(cloud, "sim-1")
    handle = await watched(cloud)
    first = (await handle.describe()).run_id

    result = await (await begun(cloud, "sim-1")).result(LIMIT)

    assert names(result.moved) == ["web"]
    assert (await handle.describe()).run_id != first
    assert cloud.stage.names().count("look_at_hosts") > 4
