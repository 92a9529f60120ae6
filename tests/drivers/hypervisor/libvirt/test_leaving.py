"""What the host that a guest leaves makes of a migration that another call has begun; libvirt's part is played.

Post-copy is what no other test reaches: the guest runs on its next host, and its memory is on both.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import libvirt
import pytest

from drivers.blocking import BlockingCalls
from drivers.hypervisor.base import HeldGuest, Report
from drivers.hypervisor.libvirt import gate, leaving, migration_call, migration_job, severing
from drivers.hypervisor.libvirt.domains import Domains as RealDomains
from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
from drivers.hypervisor.libvirt.leaving import Leaving
from drivers.hypervisor.libvirt.migration_job import Forced
from drivers.hypervisor.libvirt.peers import Peer, _let_run
from hostler.contract.errors import InvalidState, NotFound, OperationFailed, RescheduleError, Unavailable
from hostler.contract.guests import Incoming, MigrationLimits, MigrationReport, Whereabouts
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings

POST_COPY = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY]
BROKEN = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED]
MIGRATED = [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
RUNNING = [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]
JOB = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
LIMITS = MigrationLimits(post_copy=True)
MOMENT = timedelta(seconds=0.01)


class Domain:
    """A guest on its source: post-copy is under way until so many looks have seen it."""

    def __init__(self, looks: float, then: list[int] = MIGRATED) -> None:
        self.uuid = str(uuid4())
        self._left, self._then = looks, then
        self.aborted = 0

    @property
    def crosses(self) -> bool:
        return self._left > 0

    def arrives(self) -> None:
        self._left = 0

    def state(self) -> list[int]:
        self._left -= 1
        return POST_COPY if self.crosses else self._then

    def jobStats(self, flags: int = 0) -> dict[str, Any]:  # noqa: N802 - libvirt's name
        return JOB if self.crosses and not flags else {}

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        self.aborted += 1

    def migrateSetMaxDowntime(self, downtime: int) -> None:  # noqa: N802 - libvirt's name
        pass

    def metadata(self, *_arguments: object) -> str:
        return "<guest/>"

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return self.uuid

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.crosses or self._then == BROKEN


class Paused(Domain):
    """A guest that a migration has left standing still, until somebody resumes it."""

    MIGRATION: ClassVar = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]

    def __init__(self, then: list[int]) -> None:
        super().__init__(0, self.MIGRATION)
        self._after = then

    def resume(self) -> None:
        self._then = self._after

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self._then != MIGRATED


class Sent(Domain):
    """A guest that runs here and writes faster than its memory travels: it gets across only when it is forced."""

    def __init__(self, *, took: timedelta = timedelta(0), post_copy: bool = False) -> None:
        super().__init__(0, RUNNING)
        self._took, self._post_copy = took, post_copy
        self._travels, self._ended = False, threading.Event()
        self.asked = self.switched = self.suspended = 0

    @property
    def crosses(self) -> bool:
        return False

    def leave(self, *_arguments: object) -> None:
        """In the place of libvirt's call."""
        self._travels = True
        self._ended.wait(10)
        if self.aborted:
            raise libvirt.libvirtError("operation aborted: migration out: canceled by client")

    def arrives(self) -> None:
        self._then = MIGRATED
        self._stop()

    def jobStats(self, flags: int = 0) -> dict[str, Any]:  # noqa: N802 - libvirt's name
        job = JOB | {"time_elapsed": int(self._took.total_seconds() * 1000), "memory_remaining": 7 << 20}
        return job if self._travels and not flags else {}

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        super().abortJob()
        self._stop()

    def migrateStartPostCopy(self) -> None:  # noqa: N802 - libvirt's name
        self.asked += 1
        if not self._post_copy:
            raise libvirt.libvirtError("the migration was not begun with the flag for that")
        self.switched += 1
        self._then = POST_COPY

    def suspend(self) -> None:
        self.suspended += 1
        self._then = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self._then != MIGRATED

    def _stop(self) -> None:
        self._travels = False
        self._ended.set()


class Domains:
    """The domains of the host."""

    def __init__(self, *domains: Domain) -> None:
        self._domains = {domain.uuid: domain for domain in domains}
        self.noted: list[str] = []

    def get(self, server_id: str) -> Domain:
        return self._domains[server_id]

    def held(self) -> list[HeldGuest]:
        return [HeldGuest(server_id, PowerState.RUNNING, None) for server_id in self._domains]

    def is_off(self, server_id: str) -> bool:
        return not self.get(server_id).isActive()

    def is_handed_over(self, server_id: str) -> bool:
        return self.get(server_id).state() == MIGRATED

    def note_handed_over(self, server_id: str) -> None:
        self.noted.append(server_id)


class Stage:
    """What was done to the guest, and whether it was still crossing over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_run: list[bool] = []
        self.severed: list[str] = []
        self.domain = Domain(0)
        self.silent = False
        stage = self

        class FakePeer:
            def __init__(self, address: str) -> None:
                self.address = address

            def open(self, refusal: type[Exception]) -> None:
                pass

            def let_run(self, server_id: str) -> None:
                stage.let_run.append(stage.domain.crosses)

            def report(self, server_id: str) -> None:
                pass

            @property
            def lost(self) -> bool:
                return stage.silent

            def close(self) -> None:
                pass

        monkeypatch.setattr(leaving, "Peer", FakePeer)
        monkeypatch.setattr(leaving, "POLL_INTERVAL", MOMENT)
        monkeypatch.setattr(gate, "LOOK_INTERVAL", MOMENT)
        monkeypatch.setattr(severing, "SEVER_INTERVAL", MOMENT)
        monkeypatch.setattr(severing, "sever", self.severed.append)

    def leaves(self, domain: Domain, blocking: BlockingCalls) -> Leaving:
        self.domain = domain
        return Leaving("test:///default", Domains(domain), blocking, 1)  # type: ignore[arg-type]  # it is played


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
async def blocking() -> AsyncIterator[BlockingCalls]:
    calls = BlockingCalls("test", 4)
    yield calls
    await calls.close()


def incoming(domain: Domain, address: str = "192.0.2.7") -> Incoming:
    return Incoming(server_id=domain.uuid, uri="", address=address, live="<l/>", persistent="<p/>")


def ignore(_said: str) -> None:
    """Nobody listens."""


async def test_another_try_in_the_middle_of_post_copy_follows_what_is_under_way(
    stage: Stage, blocking: BlockingCalls
) -> None:
    domain, said = Domain(20), list[str]()
    await stage.leaves(domain, blocking).migrate(domain.uuid, incoming(domain), LIMITS, said.append)
    assert stage.let_run == [False]
    assert "fetches the rest of its memory" in said[0]


async def test_whoever_is_cancelled_meanwhile_waits_for_all_of_the_guest(stage: Stage, blocking: BlockingCalls) -> None:
    domain = Domain(float("inf"))
    call = stage.leaves(domain, blocking).migrate(domain.uuid, incoming(domain), LIMITS, ignore)
    task = asyncio.create_task(call)
    await asyncio.sleep(10 * MOMENT.total_seconds())
    task.cancel()
    await asyncio.sleep(10 * MOMENT.total_seconds())
    assert not task.done()
    domain.arrives()
    await task
    assert stage.let_run == [False]


async def test_a_guest_of_which_some_is_left_here_is_not_cut_off(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "PATIENCE", timedelta(0))
    monkeypatch.setattr(leaving, "END_LIMIT", timedelta(seconds=0.2))
    domain = Domain(float("inf"))
    with pytest.raises(Unavailable, match="still fetches memory from here") as refusal:
        await stage.leaves(domain, blocking).end(domain.uuid)
    assert "let nothing end it" in str(refusal.value.remedy)
    assert stage.severed == []
    with pytest.raises(Unavailable, match="still fetches memory from here"):
        await stage.leaves(domain, blocking).refuse_crossing(domain.uuid)
    domain.arrives()
    await stage.leaves(domain, blocking).refuse_crossing(domain.uuid)
    assert await Leaving("", Domains(domain), blocking, 1).end(domain.uuid) is Whereabouts.HANDED_OVER  # type: ignore[arg-type]  # it is played


async def test_a_guest_that_stands_still_here_is_let_run_on(stage: Stage, blocking: BlockingCalls) -> None:
    domain = Paused(then=RUNNING)
    assert await stage.leaves(domain, blocking).end(domain.uuid) is Whereabouts.HERE


async def test_one_that_libvirt_only_takes_for_standing_still_is_not_said_to_be_here(
    stage: Stage, blocking: BlockingCalls
) -> None:
    domain = Paused(then=Paused.MIGRATION)
    with pytest.raises(Unavailable, match="does not let the guest run on"):
        await stage.leaves(domain, blocking).end(domain.uuid)
    gone = Paused(then=MIGRATED)
    assert await stage.leaves(gone, blocking).end(gone.uuid) is Whereabouts.HANDED_OVER


async def test_what_an_earlier_try_left_standing_still_runs_on_before_it_is_sent_anew(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, seen = Paused(then=RUNNING), list[list[int]]()

    def migrate(*arguments: Any) -> None:
        seen.append(domain.state())
        arguments[-1]()

    monkeypatch.setattr(migration_call, "migrate", migrate)
    here = stage.leaves(domain, blocking)
    await here.migrate(domain.uuid, incoming(domain), MigrationLimits(), ignore)
    await here.close()
    assert seen == [RUNNING]


async def test_nor_does_it_stand_still_until_its_next_host_answers(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_peer: object, refusal: type[Unavailable]) -> None:
        raise refusal("no route to host")

    domain = Paused(then=RUNNING)
    here = stage.leaves(domain, blocking)
    monkeypatch.setattr("drivers.hypervisor.libvirt.leaving.Peer.open", refuse)
    with pytest.raises(Unavailable, match="no route"):  # for all that, it may be there as a whole
        await here.migrate(domain.uuid, incoming(domain), MigrationLimits(), ignore)
    assert domain.state() == RUNNING


async def test_one_that_stands_still_because_it_was_forced_is_not_let_run_by_another_try(
    stage: Stage, blocking: BlockingCalls
) -> None:
    class Still(Sent):
        def resume(self) -> None:
            raise AssertionError

    domain = Still()
    domain._travels = True
    domain.suspend()
    here = stage.leaves(domain, blocking)
    await here.migrate(domain.uuid, incoming(domain), MigrationLimits(), lambda _said: domain.arrives())
    assert stage.let_run == [False]


async def test_a_migration_that_is_given_up_after_all_has_crossed_over_goes_on(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "PATIENCE", timedelta(0))
    monkeypatch.setattr(leaving, "END_LIMIT", 5 * MOMENT)
    domain = Domain(float("inf"))
    here = stage.leaves(domain, blocking)
    call = asyncio.create_task(here._end_of_other(domain))
    giving_up = asyncio.create_task(here._give_up(domain, call, ignore))
    await asyncio.sleep(20 * MOMENT.total_seconds())
    assert (giving_up.done(), stage.severed) == (False, [])
    domain.arrives()
    await giving_up


@pytest.mark.parametrize("complaint", [None, libvirt.libvirtError("the guest has gone")])
async def test_a_guest_that_runs_on_its_next_host_does_not_wait_until_libvirt_has_seen_that_it_is_gone_here(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch, complaint: Exception | None
) -> None:
    through = threading.Event()

    def migrate(*arguments: Any) -> None:
        tell_gone = arguments[-1]
        tell_gone()
        through.wait(10)
        if complaint is not None:
            raise complaint

    monkeypatch.setattr(migration_call, "migrate", migrate)
    domain = Domain(0, RUNNING)
    domains = Domains(domain)
    here = Leaving("", domains, blocking, 1)  # type: ignore[arg-type]  # it is played
    await here.migrate(domain.uuid, incoming(domain), MigrationLimits(), ignore)

    closing = asyncio.create_task(here.close())
    await asyncio.sleep(10 * MOMENT.total_seconds())
    assert (closing.done(), domains.noted) == (False, [])
    through.set()
    await closing
    assert domains.noted == [domain.uuid]


async def test_that_a_guest_has_left_is_noted_as_soon_as_libvirt_can_be_asked(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "NOTE_PAUSES", [MOMENT, MOMENT, MOMENT])
    monkeypatch.setattr(migration_call, "migrate", lambda *arguments: arguments[-1]())
    domain = Domain(0, RUNNING)
    domains, complaints = Domains(domain), [Unavailable("it is being started again")] * 2
    note = domains.note_handed_over

    def note_later(server_id: str) -> None:
        if complaints:
            raise complaints.pop()
        note(server_id)

    monkeypatch.setattr(domains, "note_handed_over", note_later)
    here = Leaving("", domains, blocking, 1)  # type: ignore[arg-type]  # it is played
    await here.migrate(domain.uuid, incoming(domain), MigrationLimits(), ignore)
    await here.close()
    assert domains.noted == [domain.uuid]


async def test_no_time_is_too_long_for_a_guest_that_has_crossed_over(stage: Stage, blocking: BlockingCalls) -> None:
    domain = Domain(float("inf"))
    here = stage.leaves(domain, blocking)
    call = asyncio.create_task(here._end_of_other(domain))
    limits = MigrationLimits(completion_timeout=timedelta(microseconds=1))
    following = asyncio.create_task(here._follow(domain, call, asyncio.Event(), limits, ignore))
    await asyncio.sleep(20 * MOMENT.total_seconds())
    assert not following.done()
    domain.arrives()
    await following


async def test_one_that_takes_too_long_is_ended_and_its_guest_runs_on_here(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = timedelta(minutes=1)
    domain = Sent(took=timedelta(seconds=61))
    monkeypatch.setattr(migration_call, "migrate", domain.leave)
    here = stage.leaves(domain, blocking)
    with pytest.raises(OperationFailed, match=r"more than 0:01:00; .* 7 MiB of memory") as refusal:
        await here.migrate(domain.uuid, incoming(domain), MigrationLimits(completion_timeout=limit), ignore)
    assert (refusal.value.detail.field, refusal.value.detail.value) == ("completion_timeout", str(limit))
    assert "allow more time" in str(refusal.value.remedy)
    assert (domain.aborted, domain.state(), stage.let_run, stage.severed) == (1, RUNNING, [], [])
    assert (domain.asked, domain.suspended) == (0, 0)


@pytest.mark.parametrize(
    ("post_copy", "done"), [(True, Forced.POST_COPY), (False, Forced.STILL)], ids=["post-copy", "still"]
)
async def test_one_that_takes_too_long_is_forced_once_where_that_is_wanted_and_its_notes_say_what_was_done(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch, post_copy: bool, done: Forced
) -> None:
    domain, said = Sent(took=timedelta(seconds=61), post_copy=post_copy), list[str]()
    monkeypatch.setattr(migration_call, "migrate", domain.leave)
    limits = MigrationLimits(completion_timeout=timedelta(minutes=1), force_complete=True, post_copy=post_copy)

    def report(words: str) -> None:
        said.append(words)
        if len(said) == 10:
            domain.arrives()

    await stage.leaves(domain, blocking).migrate(domain.uuid, incoming(domain), limits, report)

    assert (domain.asked, domain.switched, domain.suspended) == ((1, 1, 0) if post_copy else (1, 0, 1))
    assert [words.endswith(f"; {done}") for words in said if words.startswith("migrating: ")][-5:] == [True] * 5
    assert (domain.aborted, stage.let_run) == (0, [False])


@pytest.mark.parametrize("force", [False, True])
async def test_without_a_limit_no_time_is_too_long(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    domain, said = Sent(took=timedelta(days=365)), list[str]()
    monkeypatch.setattr(migration_call, "migrate", domain.leave)
    limits = MigrationLimits(completion_timeout=timedelta(0), force_complete=force)

    def report(words: str) -> None:
        said.append(words)
        if len(said) == 10:
            domain.arrives()

    await stage.leaves(domain, blocking).migrate(domain.uuid, incoming(domain), limits, report)
    assert (domain.aborted, domain.asked, domain.suspended) == (0, 0, 0)


async def test_whoever_forces_it_while_only_disks_travel_has_it_forced_as_soon_as_that_can_be(
    stage: Stage, blocking: BlockingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, said = [Forced.POST_COPY, Forced.SOON, Forced.SOON], list[str]()
    monkeypatch.setattr(migration_job, "force", lambda _domain, patient: answers.pop() if patient else None)
    monkeypatch.setattr(migration_job, "crossing", lambda _domain: False)
    domain = Domain(float("inf"))
    here = stage.leaves(domain, blocking)
    call = asyncio.create_task(here._end_of_other(domain))
    await here.force(domain.uuid)

    def report(words: str) -> None:
        said.append(words)
        if "fetches the rest" in words:
            domain.arrives()

    await here._follow(domain, call, asyncio.Event(), LIMITS, report)
    assert answers == []
    assert any("as soon as its disks are there" in words for words in said)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether those who forced a migration whose disks still travel were patient."""
    asked = list[bool]()

    def force(_domain: Domain, patient: bool) -> Forced:
        asked.append(patient)
        return Forced.SOON if patient else Forced.STILL

    monkeypatch.setattr(migration_job, "force", force)
    monkeypatch.setattr(migration_job, "crossing", lambda _domain: False)
    return asked


async def test_whoever_forces_it_twice_does_not_wait_for_the_disks(
    stage: Stage, blocking: BlockingCalls, asked: list[bool]
) -> None:
    domain = Domain(0, RUNNING)
    here = stage.leaves(domain, blocking)
    for _ in range(2):
        await here.force(domain.uuid)
    await here.end(domain.uuid)  # the next one is another migration
    await here.force(domain.uuid)
    assert asked == [True, False, True]


async def test_nor_does_one_that_takes_too_long(stage: Stage, blocking: BlockingCalls, asked: list[bool]) -> None:
    domain = Domain(float("inf"))
    here = stage.leaves(domain, blocking)
    call = asyncio.create_task(here._end_of_other(domain))
    await here.force(domain.uuid)
    limits = LIMITS.model_copy(update={"completion_timeout": timedelta(microseconds=1), "force_complete": True})
    await here._follow(
        domain, call, asyncio.Event(), limits, lambda words: domain.arrives() if "stands still" in words else None
    )
    assert asked == [True, False]


class Host:
    """A host that one guest leaves at a time; one does, and another waits."""

    def __init__(self, stage: Stage, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second = Sent(), Sent()
        domains = Domains(self.first, self.second)
        for name in ("get", "held", "is_off", "is_handed_over", "note_handed_over"):
            monkeypatch.setattr(RealDomains, name, partial(_on, getattr(domains, name)))
        leave = {domain.uuid: domain.leave for domain in (self.first, self.second)}
        monkeypatch.setattr(migration_call, "migrate", lambda _uri, there, *_: leave[there.server_id]())
        settings = HostSettings(parallel_live_migrations=1)
        self.driver = LibvirtHypervisor(LibvirtSettings(), settings, directory, str(uuid4()))
        stage.domain = self.second
        self.said: list[str] = []

    async def begin(self, limits: MigrationLimits) -> None:
        self.leaves = asyncio.create_task(self._send(self.first, MigrationLimits(), ignore))
        while not self.first._travels:  # noqa: ASYNC110 - it is played
            await asyncio.sleep(MOMENT.total_seconds())
        self.waits = asyncio.create_task(self._send(self.second, limits, self.said.append))
        while not self.said:  # noqa: ASYNC110 - the same
            await asyncio.sleep(MOMENT.total_seconds())
        assert self.said[0] == "waits until another guest has left (1 leaves now)"

    async def close(self) -> None:
        for task in (self.leaves, self.waits):
            task.cancel()
        await asyncio.wait([self.leaves, self.waits])
        await self.driver.close()

    async def _send(self, domain: Sent, limits: MigrationLimits, report: Report) -> MigrationReport:
        return await self.driver.migrate(domain.uuid, incoming(domain), limits, report)


def _on(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)


@pytest.fixture
async def host(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    host = Host(stage, tmp_path, monkeypatch)
    yield host
    await host.close()


async def test_the_time_that_a_migration_may_take_begins_when_others_have_left(host: Host) -> None:
    limit = timedelta(seconds=0.5)
    await host.begin(MigrationLimits(completion_timeout=limit))
    await asyncio.sleep(limit.total_seconds())
    assert (host.waits.done(), host.second._travels) == (False, False)
    host.first.arrives()
    while not host.second._travels:  # noqa: ASYNC110 - it is played
        await asyncio.sleep(MOMENT.total_seconds())
    host.second.arrives()
    assert (await host.waits).duration < limit
    assert host.second.aborted == 0


async def test_one_that_waits_cannot_be_forced_but_ended_and_runs_on(host: Host) -> None:
    await host.begin(MigrationLimits())
    with pytest.raises(InvalidState, match="not on its way yet"):
        await host.driver.force_complete(host.second.uuid)
    assert await host.driver.end_migration(host.second.uuid) is Whereabouts.HERE
    with pytest.raises(RescheduleError, match="ended before it had begun"):
        await host.waits
    assert (host.second._travels, host.second.suspended, host.leaves.done()) == (False, 0, False)


async def test_one_that_goes_off_while_it_waits_is_said_to_be_off(host: Host) -> None:
    await host.begin(MigrationLimits())
    host.second._then = [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN]
    with pytest.raises(NotFound, match="the guest is off"):
        await host.waits
    assert host.leaves.done() is False


@pytest.mark.parametrize(("state", "runs"), [(RUNNING, True), (BROKEN, False)])
def test_what_broke_off_in_the_middle_is_not_let_run(state: list[int], runs: bool) -> None:
    class There:
        def lookupByUUIDString(self, server_id: str) -> "There":  # noqa: N802 - libvirt's name
            return self

        def state(self) -> list[int]:
            return state

        def resume(self) -> None:
            raise AssertionError

    def let_run() -> None:
        _let_run(There(), "s")

    if runs:
        let_run()
    else:
        with pytest.raises(Unavailable, match="does not run on its new host"):
            let_run()


@pytest.mark.parametrize(
    "address",
    [
        *("", " ", "host name", "-oProxyCommand=x", "host-", "a..b", "host\n", "ho_st", "x" * 64),
        *("192.0.2.7/system?no_verify=1", "192.0.2.7:16514", "user@host", "[::1]", "fe80::1%eth0/x", "é"),
        "x/system?command=/bin/sh#",
    ],
)
def test_what_is_no_address_is_not_connected_to(address: str) -> None:
    with pytest.raises(RescheduleError, match="an IP address or a name") as refusal:
        Peer(address)
    assert (refusal.value.detail.field, refusal.value.detail.value) == ("host.migration_address", address)
    assert refusal.value.remedy


@pytest.mark.parametrize("uri", ["qemu+ext:///system?command=/bin/sh", "qemu+tls://192.0.2.9/system?no_verify=1"])
async def test_the_target_s_own_word_for_its_libvirt_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, blocking: BlockingCalls, uri: str
) -> None:
    opened: list[str] = []

    def connect(uri: str, refusal: type[RescheduleError]) -> None:
        opened.append(uri)
        raise refusal("so far")

    monkeypatch.setattr("drivers.hypervisor.libvirt.peers.connect", connect)
    domain = Domain(0, RUNNING)
    here = Leaving("", Domains(domain), blocking, 1)  # type: ignore[arg-type]  # it is played
    with pytest.raises(RescheduleError, match="so far"):
        await here.migrate(domain.uuid, incoming(domain).model_copy(update={"uri": uri}), LIMITS, ignore)
    assert opened == ["qemu+tls://192.0.2.7/system"]
