"""Draining a host: it gets no new servers, and those that it has go elsewhere, each in the way that suits it."""

from datetime import timedelta

import pytest

from hostler.client import HostWork
from hostler.contract.errors import Cancelled, InvalidRequest, InvalidState, NotFound
from hostler.contract.host_work import DrainResult, HostOutcome, HostProgress, MoveState, ServerMove
from hostler.contract.servers import NEVER, OperationName, Server
from hostler.contract.states import VmState
from hostler.settings import DrainSettings
from models import Server as Row
from tests.cloud import LIMIT, Cloud
from tests.workflows.conftest import StartCloud
from tests.workflows.test_volume import attach
from workflows.host_details import markdown

Drain = HostWork[DrainResult]
DATA = "data"
COMING = "an operation may yet bring it here: hostler server follow"


async def drained(cloud: Cloud, **options: object) -> DrainResult:
    """What became of a drain of sim-1."""
    return await (await cloud.client.hosts.drain("sim-1", **options)).result(LIMIT)  # type: ignore[arg-type]  # of the method


async def stopped(cloud: Cloud, name: str) -> Server:
    """A server that is off."""
    return await (await cloud.client.servers.stop((await cloud.booted(name, host="sim-1")).id)).result(LIMIT)


async def shelved(cloud: Cloud, name: str) -> Server:
    """A server on the shelf that keeps its host."""
    server = await cloud.booted(name, host="sim-1")
    return await (await cloud.client.servers.shelve(server.id, offload_after=NEVER)).result(LIMIT)


def in_error(cloud: Cloud, server: Server) -> None:
    """Let the server be in ERROR."""
    with cloud.database.write() as session:
        session.get_one(Row, server.id).vm_state = VmState.ERROR


async def with_volume(cloud: Cloud, name: str, volume: str = DATA, **options: object) -> Server:
    """A server with a volume that sim-1 keeps."""
    kept = await cloud.client.volumes.create(volume, size_gib=1)
    return await cloud.booted(name, **attach(kept.id), **options)


def kept(result: DrainResult | HostProgress) -> list[tuple[str, str]]:
    """The volumes that the host keeps, each with the server that uses it."""
    return [(one.name, one.server) for one in result.volumes or []]


def names(moves: list[ServerMove]) -> list[str]:
    """The servers' names, in order."""
    return sorted(move.name for move in moves)


def outcome(result: HostOutcome) -> dict[str, list[str]]:
    """The names by what became of them."""
    lists = {"moved": result.moved, "skipped": result.skipped, "failed": result.failed, "left": result.left}
    return {what: names(moves) for what, moves in lists.items() if moves}


async def reached(cloud: Cloud, drain: Drain, name: str, state: MoveState) -> None:
    """Return when the server is in this state."""
    async for progress in drain.follow():
        if any((one.name, one.state) == (name, state) for one in progress.servers):
            return
    raise AssertionError(f"{name} was never {state}")


async def test_every_server_leaves_in_the_way_that_suits_it(cloud: Cloud) -> None:
    runs = await cloud.booted("runs", host="sim-1")
    off, kept = await stopped(cloud, "off"), await shelved(cloud, "kept")
    assert {server.host for server in (runs, off, kept)} == {"sim-1"}

    result = await drained(cloud, reason="new memory")

    assert (outcome(result), result.complete) == ({"moved": ["kept", "off", "runs"]}, True)
    assert {one.name: (one.operation, one.to) for one in result.moved} == {
        "runs": (OperationName.LIVE_MIGRATE, "sim-2"),
        "off": (OperationName.CONFIRM_RESIZE, "sim-2"),
        "kept": (OperationName.SHELVE_OFFLOAD, None),
    }
    shown = [await cloud.client.servers.show(server.id) for server in (runs, off, kept)]
    assert [server.status for server in shown] == ["ACTIVE", "SHUTOFF", "SHELVED_OFFLOADED"]
    host = await cloud.client.hosts.show("sim-1")
    assert (host.enabled, host.disabled_reason, host.servers) == (False, "new memory", 0)
    world = await cloud.world()
    assert {place for place, _ in world.guests | world.claims | world.allocations} == {"sim-2"}
    assert not world.formers


async def test_a_host_without_servers_is_only_disabled(cloud: Cloud) -> None:
    assert outcome(await drained(cloud)) == {}
    host = await cloud.client.hosts.show("sim-1")
    assert (host.enabled, host.disabled_reason) == (False, "it is drained")


async def test_it_ends_at_the_first_that_cannot_be_moved(cloud: Cloud) -> None:
    broken, fine = await cloud.booted("broken", host="sim-1"), await stopped(cloud, "fine")
    in_error(cloud, broken)

    result = await drained(cloud, parallel=1)

    assert outcome(result) == {"failed": ["broken"], "left": ["fine"]}
    assert result.stopped == "server broken cannot be moved: it is ERROR"
    assert (await cloud.client.servers.show(fine.id)).host == "sim-1"


async def test_it_skips_those_that_cannot_be_moved_and_lists_them(cloud: Cloud) -> None:
    broken, moved, _ = (
        await cloud.booted("broken", host="sim-1"),
        await stopped(cloud, "moved"),
        await stopped(cloud, "fine"),
    )
    in_error(cloud, broken)
    await (await cloud.client.servers.migrate(moved.id)).result(LIMIT)

    result = await drained(cloud, skip=True)

    assert outcome(result) == {"moved": ["fine"], "skipped": ["broken", "moved"]}
    assert {one.name: one.reason for one in result.skipped} == {
        "broken": "it is ERROR",
        "moved": "it is VERIFY_RESIZE, and what it was before its move is on this host",
    }
    assert not result.complete


async def test_a_server_whose_move_fails_is_where_it_was(cloud: Cloud) -> None:
    server = await stopped(cloud, "web")
    await cloud.client.hosts.disable("sim-2")

    result = await drained(cloud, skip=True)

    assert outcome(result) == {"failed": ["web"]}
    assert "no host can take the server" in result.failed[0].reason
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("SHUTOFF", "sim-1")


async def test_whoever_asks_again_joins(cloud: Cloud) -> None:
    await stopped(cloud, "web")
    held = cloud.stage.hold("receive_disks")
    first = await cloud.client.hosts.drain("sim-1")
    await held.reached.wait()

    again = await cloud.client.hosts.drain("sim-1", skip=True)

    assert (first.joined, again.joined, again.run_id) == (False, True, first.run_id)
    assert (await cloud.client.hosts.draining("sim-1")).run_id == first.run_id
    held.go_on.set()
    assert outcome(await again.result(LIMIT)) == outcome(await first.result(LIMIT)) == {"moved": ["web"]}


async def test_a_busy_server_is_waited_for(cloud: Cloud) -> None:
    server = await stopped(cloud, "web")
    held = cloud.stage.hold("start_guest")
    starting = await cloud.client.servers.start(server.id)
    await held.reached.wait()

    drain = await cloud.client.hosts.drain("sim-1")
    await eventually_asks_again(cloud, drain)
    held.go_on.set()

    await starting.result(LIMIT)
    result = await drain.result(LIMIT)
    assert outcome(result) == {"moved": ["web"]}
    assert result.moved[0].operation is OperationName.LIVE_MIGRATE


async def eventually_asks_again(cloud: Cloud, drain: Drain) -> None:
    """Return when it has seen that the server is busy."""
    async for progress in drain.follow():
        if any(one.reason in ("another operation has it", f"{COMING} {one.server_id}") for one in progress.servers):
            return


@pytest.mark.parametrize("step", ["claim_resources", "spawn"])
async def test_a_server_that_is_being_built_there_is_waited_for(cloud: Cloud, step: str) -> None:
    """It has no host yet, and the drain would end before it has."""
    held = cloud.stage.hold(step)
    boot = await cloud.boot("web", host="sim-1")
    await held.reached.wait()

    drain = await cloud.client.hosts.drain("sim-1")
    await eventually_asks_again(cloud, drain)
    held.go_on.set()

    assert (await boot.result(LIMIT)).host == "sim-1"
    result = await drain.result(LIMIT)
    assert (outcome(result), result.complete) == ({"moved": ["web"]}, True)
    assert (await cloud.client.servers.show(boot.server_id)).host == "sim-2"


async def test_a_server_that_is_being_moved_there_is_waited_for(cloud: Cloud) -> None:
    server = await cloud.booted("web", host="sim-2")
    held = cloud.stage.hold("migrate_guest")
    moving = await cloud.client.servers.live_migrate(server.id, host="sim-1")
    await held.reached.wait()

    drain = await cloud.client.hosts.drain("sim-1")
    await eventually_asks_again(cloud, drain)
    held.go_on.set()

    assert (await moving.result(LIMIT)).host == "sim-1"
    assert outcome(await drain.result(LIMIT)) == {"moved": ["web"]}
    assert (await cloud.client.servers.show(server.id)).host == "sim-2"


async def test_a_server_that_is_busy_for_too_long_is_skipped(cloud: Cloud) -> None:
    cloud.settings.drain = DrainSettings(patience=timedelta(0))
    server = await stopped(cloud, "web")
    held = cloud.stage.hold("start_guest")
    await cloud.client.servers.start(server.id)
    await held.reached.wait()

    result = await drained(cloud, skip=True)

    held.go_on.set()
    assert outcome(result) == {"skipped": ["web"]}
    assert "busy for too long" in result.skipped[0].reason


async def test_so_many_at_a_time(cloud: Cloud) -> None:
    for number in range(3):
        await stopped(cloud, f"web-{number}")
    held = [cloud.stage.hold("receive_disks") for _ in range(3)]

    drain = await cloud.client.hosts.drain("sim-1", parallel=2)
    for one in held[:2]:
        await one.reached.wait()
    running = await cloud.client.operations.list()
    states = [one.state for one in (await drain.progress()).servers]

    assert [one.operation for one in running] == [OperationName.MIGRATE] * 2
    assert sorted(states) == [MoveState.MOVING, MoveState.MOVING, MoveState.PENDING]
    for one in held:
        one.go_on.set()
    assert (await drain.result(LIMIT)).complete


async def test_a_drain_that_is_cancelled_undoes_what_is_under_way(cloud: Cloud) -> None:
    server = await stopped(cloud, "web")
    await stopped(cloud, "other")
    before = await cloud.world()
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1", parallel=1)
    await held.reached.wait()

    await drain.cancel()
    held.go_on.set()
    with pytest.raises(Cancelled):
        await drain.result(LIMIT)

    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.host) == ("SHUTOFF", "sim-1")
    assert await cloud.world() == before
    assert not (await cloud.client.hosts.show("sim-1")).enabled
    progress = await drain.progress()
    assert (progress.done, progress.stopped) == (True, "it was cancelled")


async def test_whoever_enables_the_host_ends_its_drain(cloud: Cloud) -> None:
    for name in ("first", "second"):
        await stopped(cloud, name)
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1", parallel=1)
    await held.reached.wait()

    await cloud.client.hosts.enable("sim-1")
    held.go_on.set()
    result = await drain.result(LIMIT)

    assert (len(result.moved), len(result.left), result.stopped) == (1, 1, "host sim-1 was enabled")
    assert result.moved[0].operation is OperationName.CONFIRM_RESIZE


async def test_a_drain_whose_host_falls_silent_says_what_to_do(cloud: Cloud) -> None:
    """For it is disabled, and so left alone by the watch over hosts."""
    for name in ("one", "two"):
        await stopped(cloud, name)
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1", parallel=1)
    await held.reached.wait()
    cloud.alive.discard(cloud.machine("sim-1").id)
    held.go_on.set()

    result = await drain.result(LIMIT)

    assert (names(result.moved), names(result.left)) == (["one"], ["two"])
    assert result.stopped == "host sim-1 does not answer; once it is surely off: hostler host evacuate sim-1"


async def test_what_cannot_be_drained(cloud: Cloud) -> None:
    with pytest.raises(NotFound, match="no host 'nope'"):
        await cloud.client.hosts.drain("nope")
    with pytest.raises(InvalidRequest, match="parallel"):
        await cloud.client.hosts.drain("sim-1", parallel=0)
    with pytest.raises(NotFound, match="no drain"):
        await cloud.client.hosts.draining("sim-2")
    cloud.alive.discard(cloud.machine("sim-1").id)
    with pytest.raises(InvalidState) as caught:
        await cloud.client.hosts.drain("sim-1")
    assert "hostler host evacuate sim-1" in str(caught.value.remedy)
    assert (await cloud.client.hosts.show("sim-1")).enabled


async def test_a_server_that_is_deleted_meanwhile_is_no_failure(cloud: Cloud) -> None:
    server = await stopped(cloud, "web")
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1")
    await held.reached.wait()
    delete = await cloud.client.servers.delete(server.id)
    held.go_on.set()
    await delete.result(LIMIT)

    assert outcome(await drain.result(LIMIT)) == {"moved": ["web"]}


async def test_a_drain_survives_its_control_worker(cloud: Cloud) -> None:
    await stopped(cloud, "web")
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1")
    await held.reached.wait()
    await cloud.stop_control()
    held.go_on.set()
    await cloud.start_control()

    assert (await drain.result(LIMIT)).complete


async def test_volumes_that_servers_use_are_told_for_the_host_keeps_them(start_cloud: StartCloud) -> None:
    """Also those of servers that were elsewhere all the time, but none that nobody uses."""
    cloud = await start_cloud(volumes=True)
    moved = await with_volume(cloud, "moved", host="sim-1")
    await with_volume(cloud, "elsewhere", "other", host="sim-2")
    await cloud.client.volumes.create("free", size_gib=1)

    drain = await cloud.client.hosts.drain("sim-1")
    result = await drain.result(LIMIT)

    assert (outcome(result), result.complete) == ({"moved": ["moved"]}, True)
    assert kept(result) == [("other", "elsewhere"), (DATA, "moved")]
    assert [one.server_id for one in result.volumes or []][1] == moved.id
    progress = await drain.progress()
    assert kept(progress) == kept(result)
    assert "**It must stay on**: it keeps 2 volumes in use (other of elsewhere, data of moved)" in markdown(
        "", progress
    )
    assert (await cloud.client.volumes.show(DATA)).host == "sim-1"


async def test_volumes_of_a_host_without_servers_are_told_too(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    await with_volume(cloud, "elsewhere", host="sim-2")
    assert kept(await drained(cloud)) == [(DATA, "elsewhere")]


async def test_a_host_whose_volumes_nobody_uses_keeps_none_that_matters(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    await cloud.client.volumes.create(DATA, size_gib=1)
    assert kept(await drained(cloud)) == []


async def test_volumes_are_told_as_they_are_when_the_last_server_has_left(start_cloud: StartCloud) -> None:
    """A drain may take hours, and servers elsewhere come and go meanwhile."""
    cloud = await start_cloud(volumes=True)
    goes = await with_volume(cloud, "goes", "former", host="sim-2")
    await stopped(cloud, "web")
    late = await cloud.client.volumes.create("late", size_gib=1)
    held = cloud.stage.hold("receive_disks")
    drain = await cloud.client.hosts.drain("sim-1")
    await held.reached.wait()
    assert kept(await drain.progress()) == [("former", "goes")]

    await cloud.deleted(goes.id)
    await cloud.booted("comes", host="sim-2", **attach(late.id))
    held.go_on.set()

    assert kept(await drain.result(LIMIT)) == [("late", "comes")]


async def test_a_drain_that_leaves_a_server_tells_of_volumes_too(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    in_error(cloud, await with_volume(cloud, "broken", host="sim-1"))

    result = await drained(cloud)

    assert (outcome(result), kept(result)) == ({"failed": ["broken"]}, [(DATA, "broken")])
