"""The server's row: accepted once, held by one run at a time, given back once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlmodel import select

from activities.control.migrations import new_migration
from activities.control.servers import Servers
from activities.interfaces.servers import Activate, Begin, Note, SetTaskState, Settle
from hostler.contract.audit import FindingKind
from hostler.contract.errors import (
    Conflict,
    HostlerError,
    InvalidState,
    NotFound,
    OperationFailed,
    ServerBusy,
    Unavailable,
)
from hostler.contract.resources import VolumeStatus
from hostler.contract.servers import Choice, Hold, MigrationKind, OperationName, Step, StepStatus
from hostler.contract.states import PowerState, TaskState, VmState
from hostler.settings import SchedulerSettings, Settings, TimeoutSettings
from models import Database, Image, KeyPair, OwedWork, Quota, Server, ServerEvent, Volume, now
from tests.activities.given import accept, boot_request, log, uuid
from tests.rows import a_host, add

RUN, NEXT_RUN, OTHER_RUN = uuid(), uuid(), uuid()


def row(database: Database, server_id: str) -> Server:
    """The server's row."""
    with database.read() as session:
        return session.get_one(Server, server_id)


def events(database: Database) -> list[str]:
    """The names of all steps that are remembered."""
    with database.read() as session:
        return [one.step["name"] for one in session.exec(select(ServerEvent).order_by("position"))]


def begin(server_id: str, run_id: str, operation: OperationName = OperationName.STOP) -> Begin:
    """Take an active server."""
    return Begin(
        server_id=server_id,
        project="default",
        run_id=run_id,
        operation=operation,
        allowed=[VmState.ACTIVE],
        task_state=TaskState.POWERING_OFF,
    )


@pytest.fixture
def active(servers: Servers, catalogue: Database) -> str:
    """The UUID of a server that is up."""
    host = a_host()
    add(catalogue, host)
    request = boot_request()
    accept(servers, request, RUN)
    servers.activate(activation(request.server_id, host.id))
    return request.server_id


def activation(server_id: str, host_id: str) -> Activate:
    """The end of its boot."""
    return Activate(
        server_id=server_id,
        run_id=RUN,
        host_id=host_id,
        power_state=PowerState.RUNNING,
        events=log(server_id, RUN, "accept", "activate"),
    )


class TestAccept:
    """The server's row comes to be."""

    def test_the_plan_has_every_name_resolved_and_the_limits_of_the_settings(self, catalogue: Database) -> None:
        settings = Settings(
            scheduler=SchedulerSettings(max_attempts=5), timeouts=TimeoutSettings(stop=timedelta(seconds=7))
        )
        plan = accept(Servers(catalogue, settings), boot_request(), RUN)

        assert (plan.flavor.name, plan.limits.max_attempts, plan.limits.stop) == ("tiny", 5, timedelta(seconds=7))
        assert plan.image is not None
        assert [len(network.network) for network in plan.networks] == [36]
        assert [(disk.device, disk.size_bytes) for disk in plan.disks] == [("vda", 2**30)]

    def test_the_requests_own_limit_counts(self, servers: Servers) -> None:
        assert accept(servers, boot_request(max_attempts=1), RUN).limits.max_attempts == 1

    def test_done_twice_by_the_same_run_it_is_done_once(self, servers: Servers, catalogue: Database) -> None:
        request = boot_request()
        assert accept(servers, request, RUN) == accept(servers, request, RUN)
        with catalogue.read() as session:
            assert len(session.exec(select(Server)).all()) == 1

    def test_the_server_keeps_the_key_though_its_key_pair_is_deleted_between_two_tries(
        self, servers: Servers, catalogue: Database
    ) -> None:
        add(catalogue, KeyPair(name="alice", public_key="ssh-ed25519 A", fingerprint=""))
        request = boot_request(key_name="alice")
        plan = accept(servers, request, RUN)
        with catalogue.write() as session:
            session.delete(session.exec(select(KeyPair)).one())

        assert accept(servers, request, RUN) == plan

        assert plan.public_keys == {"alice": "ssh-ed25519 A"}
        assert row(catalogue, request.server_id).public_keys == plan.public_keys

    def test_a_row_that_the_release_before_made_has_the_key_of_the_key_pair_there_is(
        self, servers: Servers, catalogue: Database
    ) -> None:
        add(catalogue, KeyPair(name="alice", public_key="ssh-ed25519 A", fingerprint=""))
        request = boot_request(key_name="alice")
        plan = accept(servers, request, RUN)
        with catalogue.write() as session:
            session.get_one(Server, request.server_id).public_keys = None
        assert accept(servers, request, RUN) == plan

    def test_the_last_place_of_the_quota_is_not_asked_for_twice(self, servers: Servers, catalogue: Database) -> None:
        add(catalogue, Quota(project="default", servers=1))
        request = boot_request()
        accept(servers, request, RUN)
        assert accept(servers, request, RUN).repeated is None

    def test_another_run_with_the_same_request_finds_the_former(self, servers: Servers) -> None:
        request = boot_request()
        accept(servers, request, RUN)
        plan = accept(servers, request, OTHER_RUN)
        assert plan.repeated is not None
        assert (plan.repeated.id, plan.former_run_id) == (request.server_id, RUN)

    def test_another_request_with_the_same_uuid_is_refused(self, servers: Servers) -> None:
        request = boot_request()
        accept(servers, request, RUN)
        with pytest.raises(Conflict):
            accept(servers, request.model_copy(update={"name": "other"}), OTHER_RUN)

    def test_what_is_refused_leaves_no_row(self, servers: Servers, catalogue: Database) -> None:
        with pytest.raises(NotFound):
            accept(servers, boot_request(networks=[{"network": "none"}]), RUN)
        with catalogue.read() as session:
            assert session.exec(select(Server)).first() is None

    def test_requests_at_once_never_share_the_last_place(self, servers: Servers, catalogue: Database) -> None:
        add(catalogue, Quota(project="default", servers=3))

        def ask(_: int) -> str:
            try:
                accept(servers, boot_request(), uuid())
            except HostlerError as error:
                return error.detail.code
            return "accepted"

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        assert sorted(answers) == ["QuotaExceeded"] * 5 + ["accepted"] * 3

    def test_the_same_request_at_once_makes_one_server(self, servers: Servers, catalogue: Database) -> None:
        request = boot_request()
        with ThreadPoolExecutor(6) as pool:
            plans = list(pool.map(lambda _: accept(servers, request, RUN), range(6)))
        assert all(plan == plans[0] for plan in plans)
        with catalogue.read() as session:
            assert len(session.exec(select(Server)).all()) == 1

    def test_what_it_took_in_a_try_whose_answer_was_lost_is_free_when_it_refuses_now(
        self, servers: Servers, catalogue: Database
    ) -> None:
        request = boot_request()
        accept(servers, request, RUN)
        with catalogue.write() as session:
            session.delete(session.exec(select(Image)).one())
        with pytest.raises(NotFound, match="no image 'demo'"):
            accept(servers, request, RUN)
        left = row(catalogue, request.server_id)
        assert (left.vm_state, left.task_state, left.operation_id) == (VmState.ERROR, None, None)
        assert "no image 'demo'" in str(left.fault)

    def test_what_it_took_stays_its_own_while_it_will_be_tried_again(
        self, servers: Servers, catalogue: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = boot_request()
        accept(servers, request, RUN)

        def away(*_: object, **__: object) -> None:
            raise Unavailable("the database does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(servers, "_plan", away)
            with pytest.raises(Unavailable):
                accept(servers, request, RUN)
        assert row(catalogue, request.server_id).operation_id == RUN
        assert accept(servers, request, RUN).repeated is None


class TestBegin:
    """An operation takes the server, by compare-and-set."""

    def test_it_holds_the_server(self, servers: Servers, catalogue: Database, active: str) -> None:
        target = servers.begin(begin(active, NEXT_RUN))

        assert (target.former, target.name, [host.name for host in target.hosts]) == ("active", "web", ["host"])
        taken = row(catalogue, active)
        assert (taken.operation_id, taken.task_state) == (NEXT_RUN, "powering-off")

    def test_done_twice_it_is_done_once(self, servers: Servers, active: str) -> None:
        assert servers.begin(begin(active, NEXT_RUN)) == servers.begin(begin(active, NEXT_RUN))

    def test_of_many_at_once_one_gets_it(self, servers: Servers, active: str) -> None:
        def ask(_: int) -> str:
            try:
                servers.begin(begin(active, uuid()))
            except ServerBusy:
                return "busy"
            return "mine"

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(ask, range(6))) == ["busy"] * 5 + ["mine"]

    def test_a_delete_takes_it_from_a_run_that_is_over(
        self, servers: Servers, catalogue: Database, active: str
    ) -> None:
        servers.begin(begin(active, NEXT_RUN))
        servers.begin(begin(active, OTHER_RUN, OperationName.DELETE))
        assert row(catalogue, active).operation_id == OTHER_RUN

    def test_a_try_that_comes_after_its_run_has_ended_gets_nothing(
        self, servers: Servers, catalogue: Database, active: str
    ) -> None:
        with pytest.raises(InvalidState, match="given server web back already"):
            servers.begin(begin(active, RUN))  # the run that booted it
        assert row(catalogue, active).operation_id is None

    def test_the_state_must_allow_it(self, servers: Servers, active: str) -> None:
        call = begin(active, NEXT_RUN).model_copy(update={"allowed": [VmState.STOPPED]})
        with pytest.raises(InvalidState, match="ACTIVE"):
            servers.begin(call)

    def test_it_must_be_of_the_project(self, servers: Servers, active: str) -> None:
        with pytest.raises(NotFound):
            servers.begin(begin(active, NEXT_RUN).model_copy(update={"project": "theirs"}))


class TestTheEnd:
    """The server is given back."""

    def test_activated_twice_it_is_activated_once(self, servers: Servers, catalogue: Database, active: str) -> None:
        first = row(catalogue, active)
        server = servers.activate(activation(active, first.host_id or ""))
        assert (server.status, server.launched_at) == ("ACTIVE", first.launched_at)
        assert events(catalogue) == ["accept", "activate"]

    def test_a_run_that_no_longer_holds_it_changes_nothing(
        self, servers: Servers, catalogue: Database, active: str
    ) -> None:
        before = row(catalogue, active)
        late = Settle(server_id=active, run_id=OTHER_RUN, vm_state=VmState.ERROR, events=log(active, OTHER_RUN, "late"))
        servers.settle(late)
        servers.set_task_state(SetTaskState(server_id=active, run_id=OTHER_RUN, task_state=TaskState.SPAWNING))
        servers.finish_delete(log(active, OTHER_RUN, "late"))
        assert row(catalogue, active) == before
        assert events(catalogue) == ["accept", "activate"]

    def test_settled_in_error_it_keeps_its_fault_until_it_is_well(
        self, servers: Servers, catalogue: Database, active: str
    ) -> None:
        for vm_state in (VmState.ERROR, VmState.ACTIVE):
            run = uuid()
            servers.begin(begin(active, run).model_copy(update={"allowed": list(VmState)}))
            error = OperationFailed("it broke").detail if vm_state is VmState.ERROR else None
            call = Settle(
                server_id=active, run_id=run, vm_state=vm_state, error=error, events=log(active, run, "begin", "settle")
            )
            assert servers.settle(call) == servers.settle(call)
            settled = row(catalogue, active)
            assert (settled.vm_state, settled.task_state, settled.operation_id) == (vm_state, None, None)
            assert bool(settled.fault) == (vm_state is VmState.ERROR)

    def test_deleted_it_keeps_its_row_and_loses_its_secrets(self, servers: Servers, catalogue: Database) -> None:
        request = boot_request(user_data="c2VjcmV0")
        accept(servers, request, RUN)
        for _ in range(2):
            assert servers.finish_delete(log(request.server_id, RUN, "begin", "finish_delete")).status == "DELETED"
        deleted = row(catalogue, request.server_id)
        assert (deleted.user_data, deleted.host_id, deleted.operation_id) == (None, None, None)
        assert deleted.deleted_at is not None

    def test_a_reserved_volume_is_in_use_once_its_server_is_up(self, servers: Servers, catalogue: Database) -> None:
        host, request = a_host(), boot_request()
        add(catalogue, host)
        accept(servers, request, RUN)
        volume_id = uuid()
        volume = Volume(id=volume_id, size_gib=1, status=VolumeStatus.RESERVED, server_id=request.server_id)
        add(catalogue, volume)
        servers.activate(activation(request.server_id, host.id))
        with catalogue.read() as session:
            assert session.get_one(Volume, volume_id).status is VolumeStatus.IN_USE


class TestAServerWhoseRebuildWasCutShort:
    """There may be two guests of it on its host, and one of them is in its place."""

    @pytest.fixture
    def in_error(self, catalogue: Database, active: str) -> str:
        """The server as the audit gives it back, held by an operation."""
        with catalogue.write() as session:
            held = session.get_one(Server, active)
            held.vm_state, held.operation_id = VmState.ERROR, NEXT_RUN
        self.tell(catalogue, active, FindingKind.LOST_OPERATION, f"run {RUN} is gone: ERROR, was REBUILD")
        self.tell(catalogue, active, FindingKind.POWER_STATE, "its guest is paused")
        return active

    def tell(self, database: Database, server_id: str, name: str, note: str) -> None:
        """Something that the audit has to say."""
        step = Step(name=name, status=StepStatus.DONE, note=note).model_dump(mode="json")
        event = ServerEvent(server_id=server_id, run_id=uuid(), operation=OperationName.AUDIT, position=0, step=step)
        add(database, event)

    def owed(
        self,
        servers: Servers,
        database: Database,
        server_id: str,
        operation: OperationName = OperationName.REBOOT,
        vm_state: VmState = VmState.ACTIVE,
        power_state: PowerState | None = PowerState.RUNNING,
    ) -> list[str]:
        """What its host owes when the operation has ended so."""
        history = log(server_id, NEXT_RUN, "begin", "settle").model_copy(update={"operation": operation})
        call = Settle(server_id=server_id, run_id=NEXT_RUN, vm_state=vm_state, power_state=power_state, events=history)
        assert servers.settle(call) == servers.settle(call)
        with database.read() as session:
            host_id = session.get_one(Server, server_id).host_id
            works = session.exec(select(OwedWork)).all()
            assert all((work.host_id, work.server_id) == (host_id, server_id) for work in works)
            return [work.activity for work in works]

    @pytest.mark.parametrize(
        "ended",
        [
            (OperationName.REBOOT, VmState.ACTIVE, PowerState.RUNNING),
            (OperationName.STOP, VmState.STOPPED, PowerState.SHUTDOWN),
        ],
    )
    def test_loses_the_former_guest_once_the_one_in_place_was_taken_as_it_is(
        self, servers: Servers, catalogue: Database, in_error: str, ended: tuple[OperationName, VmState, PowerState]
    ) -> None:
        assert self.owed(servers, catalogue, in_error, *ended) == ["drop_former_guest"]

    @pytest.mark.parametrize(
        "ended",
        [
            (OperationName.STOP, VmState.ERROR, None),
            (OperationName.REBOOT, VmState.ACTIVE, None),
            (OperationName.REBOOT, VmState.ACTIVE, PowerState.NOSTATE),
            (OperationName.REBOOT, VmState.ACTIVE, PowerState.PAUSED),
            (OperationName.REVERT_RESIZE, VmState.ACTIVE, PowerState.RUNNING),
        ],
    )
    def test_keeps_it_where_nobody_has_seen_that_one(
        self,
        servers: Servers,
        catalogue: Database,
        in_error: str,
        ended: tuple[OperationName, VmState, PowerState | None],
    ) -> None:
        assert self.owed(servers, catalogue, in_error, *ended) == []

    def test_keeps_it_where_a_move_is_not_over(self, servers: Servers, catalogue: Database, in_error: str) -> None:
        with catalogue.write() as session:
            move = new_migration(session.get_one(Server, in_error), uuid(), MigrationKind.RESIZE)
            session.add(move)
        assert self.owed(servers, catalogue, in_error) == []

    @pytest.mark.parametrize(
        ("name", "note"),
        [
            (FindingKind.LOST_OPERATION, "run 1 is gone: ERROR, was ACTIVE"),
            ("drop_former_guest", "owed since yesterday: a rebuild was cut short"),
        ],
    )
    def test_is_asked_for_it_no_more_when_that_is_over(
        self, servers: Servers, catalogue: Database, in_error: str, name: str, note: str
    ) -> None:
        self.tell(catalogue, in_error, name, note)
        assert self.owed(servers, catalogue, in_error) == []


def test_a_note_that_comes_late_does_not_take_back_what_came_after_it(
    servers: Servers, active: str, catalogue: Database
) -> None:
    servers.begin(begin(active, OTHER_RUN))
    holding = Step(name="hold", status=StepStatus.HELD)
    ended = holding.model_copy(update={"status": StepStatus.DONE, "finished_at": now()})
    hold = Hold(
        operation=OperationName.STOP,
        run_id=OTHER_RUN,
        step="stop_guest",
        error=OperationFailed("no").detail,
        since=now(),
        until=now(),
        choices=[Choice.RETRY],
    )
    early, late = (
        Note(hold=at, events=log(active, OTHER_RUN).model_copy(update={"steps": [step]}))
        for at, step in ((hold, holding), (None, ended))
    )

    servers.note(early)
    assert row(catalogue, active).hold is not None
    servers.note(late)
    servers.note(early)

    assert row(catalogue, active).hold is None
    with catalogue.read() as session:
        [event] = session.exec(select(ServerEvent).where(ServerEvent.run_id == OTHER_RUN))
    assert event.step["status"] == StepStatus.DONE
