"""Evacuations: the row, the allocation and what the host owes, each changed once, however often a step runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlmodel import col, select

from activities.control.evacuations import Evacuations
from activities.control.servers import Servers
from activities.control.temporal import Temporal
from activities.interfaces.evacuations import BeginEvacuation, EvacuationPlan, FinishEvacuation
from activities.interfaces.guests import ExpectGuest
from activities.interfaces.servers import HostRef, Settle
from hostler.contract.errors import InvalidRequest, InvalidState, NotFound, Unavailable
from hostler.contract.resources import VolumeStatus
from hostler.contract.servers import MigrationKind, MigrationStatus, OperationName
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.settings import Settings
from models import Allocation, BlockDevice, Database, Host, Image, Migration, OwedWork, Server, Volume, now
from tests.activities.control.test_guest_plans import SMALL, a_host_with_a_server
from tests.activities.given import log, uuid
from tests.rows import a_host, add

RUN, OTHER_RUN = uuid(), uuid()
NOBODY = cast(Temporal, None)
"""No host is up that could be asked."""
TARGET = a_host(name="target")


@pytest.fixture
def server(database: Database) -> Server:
    """A server of a host that was declared down, with its allocation; and another host."""
    server = a_host_with_a_server(database, power_state=PowerState.RUNNING)
    add(database, an_allocation(server, str(server.host_id)), Host.model_validate(TARGET.model_dump()))
    declare(database, server)
    return server


@pytest.fixture
def evacuations(database: Database) -> Evacuations:
    return Evacuations(database, Settings(), frozenset, NOBODY)


def an_allocation(server: Server, host_id: str, **changes: Any) -> Allocation:
    return Allocation(server_id=server.id, host_id=host_id, vcpus=1, ram_mib=128, disk_gib=1, **changes)


def declare(database: Database, server: Server, since: datetime | None = None) -> None:
    with database.write() as session:
        session.get_one(Host, server.host_id).down_since = since or now()


def begin(server: Server, run_id: str = RUN, **changes: Any) -> BeginEvacuation:
    call = BeginEvacuation(
        server_id=server.id,
        project=server.project,
        run_id=run_id,
        operation=OperationName.EVACUATE,
        allowed=[VmState.ACTIVE, VmState.STOPPED, VmState.ERROR],
        task_state=TaskState.REBUILDING,
    )
    return call.model_copy(update=changes)


def finish(server: Server, plan: EvacuationPlan, run_id: str = RUN) -> FinishEvacuation:
    assert plan.plan.image is not None
    return FinishEvacuation(
        server_id=server.id,
        run_id=run_id,
        host_id=TARGET.id,
        vm_state=VmState.ACTIVE,
        power_state=PowerState.RUNNING,
        image_id=plan.plan.image.id,
        events=log(server.id, run_id, "begin_evacuation", "finish_evacuation"),
    )


def settle(database: Database, server: Server, run_id: str = RUN, **changes: Any) -> None:
    call = Settle(server_id=server.id, run_id=run_id, vm_state=VmState.ACTIVE, events=log(server.id, run_id, "settle"))
    Servers(database, Settings()).settle(call.model_copy(update=changes))


def row(database: Database, server: Server) -> Server:
    with database.read() as session:
        return session.get_one(Server, server.id)


def allocations(database: Database) -> list[tuple[str, bool]]:
    with database.read() as session:
        return [(one.host_id, one.former) for one in session.exec(select(Allocation))]


def migrations(database: Database) -> list[tuple[MigrationKind, MigrationStatus]]:
    with database.read() as session:
        rows = session.exec(select(Migration).order_by(col(Migration.created_at))).all()
        return [(one.kind, one.status) for one in rows]


def owed(database: Database, host_id: str | None = None) -> list[str]:
    """By one host, or by all."""
    with database.read() as session:
        works = session.exec(select(OwedWork).order_by(col(OwedWork.created_at))).all()
    return [work.activity for work in works if host_id in (None, work.host_id)]


def owe(database: Database, server: Server, activity: str, host_id: str | None = None) -> None:
    work = OwedWork(
        id=uuid(),
        host_id=host_id or str(server.host_id),
        server_id=server.id,
        activity=activity,
        argument={},
        reason="away",
    )
    add(database, work)


async def test_it_begins_once_however_often_it_is_asked(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    plans = [await evacuations.begin_evacuation(begin(server)) for _ in range(2)]

    assert plans[0].plan == plans[1].plan
    assert [host.id for host in plans[0].hosts] == [server.host_id]
    assert (plans[0].stays_off, plans[0].former) == (False, VmState.ACTIVE)
    assert allocations(database) == [(server.host_id, True)]
    assert migrations(database) == [(MigrationKind.EVACUATION, MigrationStatus.MIGRATING)]
    assert owed(database) == ["stop_guest"]
    held = row(database, server)
    assert (held.operation_id, held.task_state, held.host_id) == (RUN, TaskState.REBUILDING, server.host_id)


async def test_what_starts_a_guest_there_is_no_longer_owed_and_the_rest_comes_before_the_stop(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    for activity in ("bring_back_guest", "start_guest"):
        owe(database, server, activity)
    owe(database, server, "start_guest", TARGET.id)

    await evacuations.begin_evacuation(begin(server))

    assert owed(database) == ["bring_back_guest", "start_guest", "stop_guest"]


async def test_at_its_end_all_changes_at_once_and_for_the_run_that_holds_it(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    plan = await evacuations.begin_evacuation(begin(server))
    add(database, an_allocation(server, TARGET.id))
    assert evacuations.finish_evacuation(finish(server, plan, OTHER_RUN)).host_id == server.host_id

    for _ in range(2):
        shown = evacuations.finish_evacuation(finish(server, plan))

    assert (shown.host_id, shown.status, shown.task_state) == (TARGET.id, "ACTIVE", None)
    assert allocations(database) == [(TARGET.id, False)]
    assert migrations(database) == [(MigrationKind.EVACUATION, MigrationStatus.COMPLETED)]
    assert row(database, server).operation_id is None


async def test_one_that_is_given_up_gives_the_allocation_back_and_leaves_the_stop_owed(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    await evacuations.begin_evacuation(begin(server))
    add(database, an_allocation(server, TARGET.id))

    for _ in range(2):
        settle(database, server)

    assert allocations(database) == [(server.host_id, False)]
    assert migrations(database) == [(MigrationKind.EVACUATION, MigrationStatus.ERROR)]
    assert owed(database) == ["stop_guest"]
    with pytest.raises(InvalidState, match="given server"):
        await evacuations.begin_evacuation(begin(server))  # a try that comes too late
    assert (await evacuations.begin_evacuation(begin(server, OTHER_RUN))).former is VmState.ACTIVE


async def test_one_that_was_cut_short_goes_on_from_what_the_server_was(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    with database.write() as session:
        session.get_one(Server, server.id).vm_state = VmState.STOPPED
    assert (await evacuations.begin_evacuation(begin(server))).stays_off
    add(database, an_allocation(server, TARGET.id))
    with database.write() as session:
        cut = session.get_one(Server, server.id)
        cut.vm_state, cut.operation_id, cut.task_state = VmState.ERROR, None, None

    plan = await evacuations.begin_evacuation(begin(server, OTHER_RUN))

    assert [host.id for host in plan.hosts] == [server.host_id, TARGET.id]
    assert (plan.stays_off, plan.former) == (True, VmState.ERROR)
    assert sorted(allocations(database)) == sorted([(str(server.host_id), True), (TARGET.id, False)])
    assert [status for _, status in migrations(database)] == [MigrationStatus.ERROR, MigrationStatus.MIGRATING]


async def test_of_a_move_that_was_cut_short_the_guest_is_off_before_the_former_one_is_brought_back(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    """For that can fail, and what is behind it then waits."""
    moved(database, server, str(server.host_id), MigrationStatus.MIGRATING)

    for _ in range(2):
        await evacuations.begin_evacuation(begin(server))

    assert owed(database) == ["stop_guest", "bring_back_claim", "bring_back_guest"]
    assert [status for _, status in migrations(database)] == [MigrationStatus.ERROR, MigrationStatus.MIGRATING]


async def test_a_root_disk_whose_image_is_gone_is_made_of_the_servers(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    with database.write() as session:
        session.exec(select(BlockDevice)).one().image_id = uuid()

    plan = await evacuations.begin_evacuation(begin(server))
    evacuations.finish_evacuation(finish(server, plan))

    assert plan.plan.image is not None
    assert plan.plan.image.id == server.image_id
    with database.read() as session:
        assert session.exec(select(BlockDevice)).one().image_id == server.image_id


async def refused(evacuations: Evacuations, database: Database, server: Server, **changes: Any) -> str:
    """Why; and nothing has changed."""
    with pytest.raises((InvalidState, InvalidRequest, NotFound)) as caught:
        await evacuations.begin_evacuation(begin(server, **changes))
    assert caught.value.detail.field
    assert caught.value.detail.value
    assert caught.value.detail.remedy
    assert (allocations(database), owed(database)) == ([(server.host_id, False)], [])
    assert row(database, server).operation_id is None
    return str(caught.value)


async def test_it_is_refused_where_the_guest_may_be_running(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    assert "on host host already" in await refused(evacuations, database, server, host=server.host_id)
    await refused(evacuations, database, server, host="nowhere")
    with database.write() as session:
        session.get_one(Host, server.host_id).down_since = None
    assert "has not been declared down" in await refused(evacuations, database, server)


async def test_it_waits_while_the_host_seems_to_answer(database: Database, server: Server) -> None:
    """That passes: either it registers and is no longer down, or this worker has not noticed yet."""
    evacuations = Evacuations(database, Settings(), lambda: frozenset({str(server.host_id)}), NOBODY)
    with pytest.raises(Unavailable):
        await evacuations.begin_evacuation(begin(server))
    assert row(database, server).operation_id is None


async def test_it_is_refused_where_a_volume_or_the_image_is_missing(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    volume = Volume(id=uuid(), size_gib=1, status=VolumeStatus.IN_USE, host_id=server.host_id, server_id=server.id)
    add(database, volume)
    assert f"volume {volume.id}" in await refused(evacuations, database, server)
    with database.write() as session:
        session.delete(session.get_one(Volume, volume.id))
        session.delete(session.get_one(Image, server.image_id))
    assert "nothing to build it from" in await refused(evacuations, database, server)


# Of one that waits to be confirmed or reverted.

SOURCE = a_host(name="source")


def moved(
    database: Database, server: Server, source_id: str, status: MigrationStatus = MigrationStatus.FINISHED
) -> None:
    """Let the server wait, off since before it came from there; that host is down, too. Else it was cut short."""
    with database.write() as session:
        finished = status is MigrationStatus.FINISHED
        session.get_one(Server, server.id).vm_state = VmState.RESIZED if finished else VmState.ERROR
        if source_id != server.host_id:
            session.add(Host.model_validate(SOURCE.model_dump() | {"id": source_id, "down_since": now()}))
            session.flush()
        session.add(an_allocation(server, source_id, former=True))
        session.add(
            Migration(
                id=uuid(),
                server_id=server.id,
                kind=MigrationKind.RESIZE,
                status=status,
                source_id=source_id,
                target_id=server.host_id,
                old_flavor=SMALL.model_dump() | {"vcpus": 3},
                new_flavor=SMALL.model_dump(),
                former_vm_state=VmState.STOPPED,
                former_power_state=PowerState.SHUTDOWN,
            )
        )


async def test_one_that_waits_is_built_as_it_is_and_what_it_was_is_kept_until_then(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    moved(database, server, SOURCE.id)

    plans = [await evacuations.begin_evacuation(begin(server)) for _ in range(2)]

    assert plans[0] == plans[1]
    assert [host.id for host in plans[0].hosts] == [server.host_id]
    assert (plans[0].former, plans[0].stays_off) == (VmState.RESIZED, True)
    assert set(allocations(database)) == {(SOURCE.id, True), (server.host_id, True)}
    assert owed(database) == ["stop_guest"]
    add(database, an_allocation(server, TARGET.id))
    for _ in range(2):
        evacuations.finish_evacuation(finish(server, plans[0], OTHER_RUN))
        evacuations.finish_evacuation(finish(server, plans[0]))
    assert allocations(database) == [(TARGET.id, False)]
    assert owed(database) == ["stop_guest", "drop_former_guest", "unbind_ports", "drop_former_claim"]
    assert [status for _, status in migrations(database)] == [MigrationStatus.CONFIRMED, MigrationStatus.COMPLETED]


async def test_one_that_is_given_up_waits_again_at_the_quota_of_the_larger_flavor(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    moved(database, server, SOURCE.id)
    await evacuations.begin_evacuation(begin(server))
    add(database, an_allocation(server, TARGET.id))

    for _ in range(2):
        settle(database, server, vm_state=VmState.RESIZED)

    assert set(allocations(database)) == {(SOURCE.id, True), (server.host_id, False)}
    assert [status for _, status in migrations(database)] == [MigrationStatus.FINISHED, MigrationStatus.ERROR]
    assert (owed(database), row(database, server).vcpus) == (["stop_guest"], 3)
    assert (await evacuations.begin_evacuation(begin(server, OTHER_RUN))).former is VmState.RESIZED


@contextmanager
def the_rows_held(database: Database) -> Iterator[list[str]]:
    """The hosts whose rows are, in the order in which they come to be."""
    held: list[str] = []

    def look(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if statement.startswith("UPDATE host "):
            values = parameters.values() if isinstance(parameters, dict) else parameters
            held.extend(one for one in values if isinstance(one, str) and one not in held)

    event.listen(database.engine, "before_cursor_execute", look)
    try:
        yield held
    finally:
        event.remove(database.engine, "before_cursor_execute", look)


@pytest.mark.parametrize("source_id", [str(UUID(int=0)), str(UUID(int=2**128 - 1))])
async def test_of_several_hosts_the_rows_are_held_in_one_order_for_all(
    evacuations: Evacuations, database: Database, server: Server, source_id: str
) -> None:
    """Or two evacuations could wait for each other."""
    moved(database, server, source_id)
    both, three = sorted([source_id, str(server.host_id)]), sorted([source_id, str(server.host_id), TARGET.id])
    with the_rows_held(database) as begun:
        await evacuations.begin_evacuation(begin(server))
    add(database, an_allocation(server, TARGET.id))
    with the_rows_held(database) as given_up:
        settle(database, server, vm_state=VmState.RESIZED)
    plan = await evacuations.begin_evacuation(begin(server, OTHER_RUN))
    add(database, an_allocation(server, TARGET.id))
    with the_rows_held(database) as finished:
        evacuations.finish_evacuation(finish(server, plan, OTHER_RUN))

    assert (begun, given_up, finished) == (both, three, three)


async def test_where_both_are_on_one_host_that_has_but_one_of_them_from_the_beginning(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    moved(database, server, str(server.host_id))

    plans = [await evacuations.begin_evacuation(begin(server)) for _ in range(2)]

    assert plans[0] == plans[1]
    assert (plans[0].former, plans[0].stays_off) == (VmState.STOPPED, True)
    assert allocations(database) == [(server.host_id, True)]
    assert owed(database) == ["stop_guest", "drop_former_guest", "drop_former_claim"]
    settle(database, server, vm_state=None)
    assert allocations(database) == [(server.host_id, False)]
    assert row(database, server).vm_state is VmState.STOPPED


async def test_one_that_can_be_reverted_or_confirmed_is_told_so(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    moved(database, server, SOURCE.id)
    for host_id, remedy in ((SOURCE.id, "hostler server revert"), (server.host_id, "hostler server confirm")):
        with database.write() as session:
            session.get_one(Host, host_id).down_since = None
        with pytest.raises(InvalidState) as caught:
            await evacuations.begin_evacuation(begin(server))
        assert remedy in (caught.value.detail.remedy or "")
        with database.write() as session:
            session.get_one(Host, host_id).down_since = now()
    assert row(database, server).operation_id is None


# Of which a confirmation or a revert was cut short.


@dataclass
class Answers:
    """A host that has the server's guest or not, and by which words it was asked."""

    none: bool
    asked: list[tuple[str, bool, bool]] = field(default_factory=list)

    async def has_none(self, host: HostRef, call: ExpectGuest) -> bool:
        self.asked.append((host.id, call.former, call.in_place))
        return self.none

    def evacuations(self, database: Database, *up: str) -> Evacuations:
        return Evacuations(database, Settings(), lambda: frozenset(up), cast(Temporal, self))


def come_back(database: Database, host_id: str) -> None:
    with database.write() as session:
        session.get_one(Host, host_id).down_since = None


def half_back(database: Database, server: Server, source_id: str) -> None:
    """Let a revert be cut short of a server that came from there."""
    moved(database, server, source_id)
    with database.write() as session:
        session.get_one(Server, server.id).vm_state = VmState.ERROR


async def test_one_that_waits_is_built_anew_once_its_source_says_that_it_has_nothing_of_it(
    database: Database, server: Server
) -> None:
    moved(database, server, SOURCE.id)
    come_back(database, SOURCE.id)
    has, none = Answers(none=False), Answers(none=True)
    for evacuations in (has.evacuations(database, SOURCE.id), none.evacuations(database)):  # the second is not heard
        with pytest.raises(InvalidState, match="host source, which is not down"):
            await evacuations.begin_evacuation(begin(server))

    assert (await none.evacuations(database, SOURCE.id).begin_evacuation(begin(server))).former is VmState.RESIZED

    assert has.asked == none.asked == [(SOURCE.id, True, True)]  # a revert may have put it in its place


@pytest.mark.parametrize("target_is_up", [False, True])
async def test_one_whose_revert_was_cut_short_is_what_it_was_and_what_its_target_has_is_cleared(
    database: Database, server: Server, target_is_up: bool
) -> None:
    half_back(database, server, SOURCE.id)
    target = str(server.host_id)
    if target_is_up:
        come_back(database, target)
    evacuations = Answers(none=True).evacuations(database, *[target] * target_is_up)

    plans = [await evacuations.begin_evacuation(begin(server)) for _ in range(2)]

    assert plans[0].plan == plans[1].plan
    assert [[host.id for host in plan.hosts] for plan in plans] == [[SOURCE.id, target]] * 2
    assert (target in plans[0].down, plans[0].stays_off) == (not target_is_up, True)
    assert set(allocations(database)) == {(SOURCE.id, True), (target, False)}
    assert [status for _, status in migrations(database)] == [MigrationStatus.ERROR, MigrationStatus.MIGRATING]
    assert owed(database, SOURCE.id) == ["stop_guest", "bring_back_claim", "bring_back_guest"]
    assert owed(database, target) == ["stop_guest"] * (not target_is_up)  # should it come back in the middle of it
    held = row(database, server)
    assert (held.host_id, held.flavor["vcpus"], held.vcpus) == (SOURCE.id, 3, 3)
    settle(database, server, vm_state=VmState.ERROR)
    assert allocations(database) == [(SOURCE.id, False)]


@pytest.mark.parametrize("heard", [False, True])
async def test_but_not_while_its_target_may_have_it_whole(database: Database, server: Server, heard: bool) -> None:
    half_back(database, server, SOURCE.id)
    target = str(server.host_id)
    come_back(database, target)
    answers = Answers(none=False)

    with pytest.raises(InvalidState, match="may have the guest") as caught:
        await answers.evacuations(database, *[target] * heard).begin_evacuation(begin(server))

    assert f"hostler server confirm {server.id}" in (caught.value.detail.remedy or "")
    assert answers.asked == [(target, False, True)] * heard
    assert (row(database, server).host_id, owed(database)) == (target, [])


async def test_one_in_error_whose_host_is_up_is_told_what_can_be_done_with_it(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    with database.write() as session:
        session.get_one(Server, server.id).vm_state = VmState.ERROR
    await evacuations.begin_evacuation(begin(server))
    settle(database, server, vm_state=VmState.ERROR)
    come_back(database, str(server.host_id))

    with pytest.raises(InvalidState) as caught:
        await evacuations.begin_evacuation(begin(server, OTHER_RUN))

    assert f"if it is up: hostler server reboot --hard {server.id}" in (caught.value.detail.remedy or "")


async def test_and_so_is_one_whose_evacuation_was_cut_short(
    evacuations: Evacuations, database: Database, server: Server
) -> None:
    await evacuations.begin_evacuation(begin(server))
    with database.write() as session:
        held = session.get_one(Server, server.id)
        held.vm_state, held.operation_id, held.task_state = VmState.ERROR, None, None
    come_back(database, str(server.host_id))

    with pytest.raises(InvalidState) as caught:
        await evacuations.begin_evacuation(begin(server, OTHER_RUN))

    assert f"hostler server revert {server.id}" in (caught.value.detail.remedy or "")
