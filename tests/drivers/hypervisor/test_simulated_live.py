"""A guest that runs goes from one simulated host to the next, and never runs on both, whoever dies when."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.simulated_guests import Record, Records, SimulatedGuest
from drivers.hypervisor.simulated_migration import HOSTS
from hostler.contract.errors import InvalidState, NotFound, RescheduleError
from hostler.contract.guests import GuestSpec, Incoming, MigrationLimits, MigrationReport, Whereabouts
from hostler.contract.states import PowerState
from hostler.settings import SimulatedFault
from tests.drivers.hypervisor.simulated import (
    NOSTATE,
    ONE,
    OTHER,
    PAUSED,
    RUNNING,
    SETTINGS,
    SHUTDOWN,
    Host,
    guest,
    ignore,
)

LIMITS = MigrationLimits()
SLOW = SETTINGS.model_copy(update={"latency": {"migrate": timedelta(seconds=0.2)}})
STUCK = SETTINGS.model_copy(update={"latency": {"migrate": timedelta(hours=1)}})
WRITES = 3
"""That a migration makes: the guest is there, it is off here, it may run there."""


class Killed(BaseException):
    """The process is no more."""


class Death:
    """Lets so many files be written, and none after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.write = Records.write
        monkeypatch.setattr(Records, "write", lambda records, record: self.after(records, record))

    def after(self, records: Records[Record], record: Record) -> None:
        if self.left == 0:
            raise Killed
        if self.left:
            self.left -= 1
        self.write(records, record)


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Iterator[Death]:
    with monkeypatch.context() as patch:
        yield Death(patch)


@pytest.fixture(params=["one process", "two processes"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are in one process, or do not know of each other."""
    if request.param == "two processes":
        apart(monkeypatch)


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOSTS, "get", lambda uri: None)


async def prepare(spec: GuestSpec, one: Host, other: Host) -> Incoming:
    description = await one.driver.describe(spec.server_id)
    return await other.driver.prepare_incoming(spec, description, None, ignore, post_copy=False)


async def send(spec: GuestSpec, one: Host, incoming: Incoming) -> MigrationReport:
    return await one.driver.migrate(spec.server_id, incoming, LIMITS, ignore)


async def killed_after(death: Death, writes: int, spec: GuestSpec, one: Host, incoming: Incoming) -> None:
    """The source dies when it has made so many of its writes, and is there again."""
    death.left = writes
    with suppress(Killed):
        await send(spec, one, incoming)
    death.left = None
    one.reborn()


async def states(spec: GuestSpec, *hosts: Host) -> list[PowerState]:
    return [await host.driver.power_state(spec.server_id) for host in hosts]


async def traces(host: Host) -> list[HeldGuest | str]:
    names = [path.name for path in (host.directory / "arriving").glob("*")]
    return [*await host.driver.held(), *await host.driver.guests(), *names, *host.taps.up]


@pytest.mark.usefixtures("processes")
class TestFlow:
    async def test_the_guest_runs_there_as_it_did_here(self, one: Host, other: Host, running: GuestSpec) -> None:
        content, said = one.content(running.server_id), list[str]()
        console = await one.driver.console_log(running.server_id, 10_000)
        incoming = await prepare(running, one, other)
        assert incoming.uri == f"simulated://{other.directory}"
        report = await one.driver.migrate(running.server_id, incoming, LIMITS, said.append)
        assert (report.memory_bytes, len(said)) == (512 << 20, WRITES)
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]
        assert (one.taps.up, other.taps.up) == (set(), {running.ports[0].port_id})
        assert other.content(running.server_id) == content
        assert await other.driver.console_log(running.server_id, 10_000) == console
        assert await other.driver.held() == [HeldGuest(running.server_id, RUNNING, OTHER)]
        assert await other.driver.free_ram_mib() == 4096 - 512
        assert not list((other.directory / "arriving").iterdir())
        await one.driver.destroy(running.server_id)
        assert await traces(one) == []
        assert await states(running, other) == [RUNNING]

    async def test_there_and_back(self, one: Host, other: Host, running: GuestSpec) -> None:
        await send(running, one, await prepare(running, one, other))
        await one.driver.destroy(running.server_id)
        await send(running, other, await prepare(running, other, one))
        await other.driver.destroy(running.server_id)
        assert await states(running, one, other) == [RUNNING, NOSTATE]
        assert await traces(other) == []

    async def test_a_second_call_says_the_same(self, one: Host, other: Host, running: GuestSpec) -> None:
        incoming = await prepare(running, one, other)
        for _ in range(2):
            assert (await send(running, one, incoming)).memory_bytes == 512 << 20
            one.reborn()
            assert await states(running, one) == [SHUTDOWN]
        assert await states(running, other) == [RUNNING]
        await send(running, one, incoming)
        await other.driver.stop(running.server_id, timedelta(0), ignore)
        await send(running, one, incoming)
        assert await states(running, other) == [SHUTDOWN], "what it does there is not the source's business"

    async def test_two_calls_at_once_are_one(self, one: Host, other: Host, running: GuestSpec) -> None:
        one.settings = SLOW
        one.reborn()
        incoming = await prepare(running, one, other)
        await asyncio.gather(send(running, one, incoming), send(running, one, incoming.model_copy()))
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]

    async def test_whoever_is_asked_about_the_guest_finds_it(
        self, one: Host, other: Host, running: GuestSpec, tmp_path: Path
    ) -> None:
        async def fresh() -> None:
            await other.driver.destroy(running.server_id)
            await one.driver.start(running.server_id)
            await send(running, one, await prepare(running, one, other))

        await send(running, one, await prepare(running, one, other))
        assert await other.driver.guests() == [running.server_id]
        await fresh()
        assert await other.driver.stop(running.server_id, timedelta(seconds=1), ignore)
        assert await states(running, other) == [SHUTDOWN]
        await fresh()
        await other.driver.snapshot(running.server_id, tmp_path / "snapshot", False, ignore)
        await fresh()
        await other.driver.spawn(running, None, ignore)
        assert await states(running, other) == [RUNNING]
        await fresh()
        await other.driver.start(running.server_id)
        assert (await other.driver.console_log(running.server_id, 10_000)).endswith("web-1 login: ")
        await fresh()
        await other.driver.reset(running.server_id)
        await fresh()
        await other.driver.set_aside(running.server_id)
        assert await other.driver.formers() == [running.server_id]
        assert await states(running, other) == [NOSTATE]
        await other.driver.bring_back(running.server_id)
        assert await states(running, other) == [SHUTDOWN]

    async def test_one_in_the_same_process_need_not_be_asked(
        self, one: Host, other: Host, running: GuestSpec, request: pytest.FixtureRequest
    ) -> None:
        await send(running, one, await prepare(running, one, other))
        unasked = "two" in request.node.name
        assert other.file("arriving", running.server_id).exists() is unasked
        assert other.taps.up == (set() if unasked else {running.ports[0].port_id})

    async def test_a_worker_that_starts_finds_it(self, one: Host, other: Host, running: GuestSpec) -> None:
        await send(running, one, await prepare(running, one, other))
        other.reborn()
        assert other.taps.up == {running.ports[0].port_id}

    async def test_power_news_are_of_the_target_that_did_not_ask_for_it(
        self, one: Host, other: Host, running: GuestSpec
    ) -> None:
        here, there = one.driver.power_changes(), other.driver.power_changes()
        assert await anext(here) == {running.server_id}
        await send(running, one, await prepare(running, one, other))
        await other.driver.free_ram_mib()
        assert await anext(there) == {running.server_id}
        second = guest()
        await one.driver.spawn(second, None, ignore)
        await one.driver.befall(second.server_id, RUNNING)
        assert await anext(here) == {second.server_id}, "of its own hand-over the source told nobody"
        await here.aclose()
        await there.aclose()


class TestDescribe:
    async def test_carries_the_guests_record(self, one: Host, running: GuestSpec) -> None:
        description = await one.driver.describe(running.server_id)
        assert SimulatedGuest.model_validate_json(description.live).boots == 1
        assert (description.virt_type, description.disks) == ("simulated", [])

    async def test_only_one_that_runs_can_go(self, one: Host, other: Host, running: GuestSpec) -> None:
        incoming = await prepare(running, one, other)
        for state in (PAUSED, SHUTDOWN):
            await one.driver.befall(running.server_id, state)
            with pytest.raises(InvalidState) as refusal:
                await one.driver.describe(running.server_id)
            assert refusal.value.remedy
            with pytest.raises(InvalidState):
                await send(running, one, incoming)
        assert await other.driver.guests() == []
        with pytest.raises(NotFound):
            await one.driver.describe(str(uuid4()))


class TestPrepare:
    async def test_leaves_a_trace_that_destroy_removes(self, one: Host, other: Host, running: GuestSpec) -> None:
        for _ in range(2):
            await prepare(running, one, other)
            other.reborn()
            assert await other.driver.held() == [HeldGuest(running.server_id, NOSTATE, OTHER)]
            assert await other.driver.guests() == []
            assert other.file("arriving", running.server_id).exists()
        for _ in range(2):
            await other.driver.destroy(running.server_id)
            assert await traces(other) == []

    async def test_refuses_what_is_no_simulated_guest(self, one: Host, other: Host, running: GuestSpec) -> None:
        description = (await one.driver.describe(running.server_id)).model_copy(update={"virt_type": "kvm"})
        with pytest.raises(RescheduleError, match="kvm"):
            await other.driver.prepare_incoming(running, description, None, ignore, post_copy=False)
        assert await traces(other) == []

    async def test_leaves_alone_what_another_host_expects_or_has(
        self, one: Host, other: Host, running: GuestSpec
    ) -> None:
        incoming = await prepare(running, one, other)
        reimaged = Host(other.directory, str(uuid4()))
        for state in (NOSTATE, RUNNING):
            with pytest.raises(RescheduleError, match=OTHER):
                await prepare(running, one, reimaged)
            with pytest.raises(RescheduleError, match=OTHER):
                await reimaged.driver.spawn(running, None, ignore)
            with pytest.raises(NotFound):
                await reimaged.driver.take_over(running.server_id)
            await reimaged.driver.destroy(running.server_id)
            assert await reimaged.driver.guests() == []
            assert await reimaged.driver.held() == [HeldGuest(running.server_id, state, OTHER)]
            if state is NOSTATE:
                await send(running, one, incoming)
                assert await reimaged.driver.guests() == []
                assert await states(running, other) == [RUNNING]
                await one.driver.start(running.server_id)

    async def test_refuses_while_a_guest_that_is_off_is_in_the_way(
        self, one: Host, other: Host, running: GuestSpec
    ) -> None:
        await other.driver.spawn(running, None, ignore)
        await other.driver.stop(running.server_id, timedelta(0), ignore)
        with pytest.raises(RescheduleError, match="off"):
            await prepare(running, one, other)

    async def test_late_it_changes_nothing(self, one: Host, other: Host, running: GuestSpec) -> None:
        description = await one.driver.describe(running.server_id)
        incoming = await prepare(running, one, other)
        await send(running, one, incoming)
        assert await other.driver.prepare_incoming(running, description, None, ignore, post_copy=False) == incoming
        assert await states(running, other) == [RUNNING]
        assert not list((other.directory / "arriving").iterdir())


class TestRefusals:
    async def test_a_guest_that_is_not_expected_stays(self, one: Host, other: Host, running: GuestSpec) -> None:
        incoming = await prepare(running, one, other)
        await other.driver.destroy(running.server_id)
        elsewhere = incoming.model_copy(update={"uri": f"simulated://{other.directory / 'nowhere'}"})
        real = incoming.model_copy(update={"uri": "qemu+tls://192.0.2.1/system"})
        own = incoming.model_copy(update={"uri": f"simulated://{one.directory}"})
        for where in (incoming, elsewhere, real, own):
            with pytest.raises(RescheduleError):
                await send(running, one, where)
            assert await states(running, one, other) == [RUNNING, NOSTATE]
            assert await one.driver.end_migration(running.server_id) is Whereabouts.HERE
        assert not (other.directory / "nowhere").exists()

    async def test_nor_does_it_go_over_one_that_was_made_there_meanwhile(
        self, one: Host, other: Host, running: GuestSpec
    ) -> None:
        incoming = await prepare(running, one, other)
        await other.driver.spawn(running, None, ignore)
        with pytest.raises(RescheduleError):
            await send(running, one, incoming)
        assert await states(running, one, other) == [RUNNING, PAUSED]

    async def test_faults_strike_each_of_these_calls(self, tmp_path: Path, running: GuestSpec) -> None:
        arguments: dict[str, tuple[object, ...]] = {
            "describe": (running.server_id,),
            "prepare_incoming": (running, None, None, ignore),
            "migrate": (running.server_id, None, LIMITS, ignore),
            "end_migration": (running.server_id,),
            "take_over": (running.server_id,),
            "force_complete": (running.server_id,),
        }
        options = {"prepare_incoming": {"post_copy": False}}
        settings = SETTINGS.model_copy(update={"faults": [SimulatedFault(host="*", call=call) for call in arguments]})
        driver = Host(tmp_path / "faulty", ONE, settings).driver
        for call, given in arguments.items():
            with pytest.raises(RescheduleError, match="simulated fault"):
                await getattr(driver, call)(*given, **options.get(call, {}))


class TestUnderWay:
    @pytest.fixture
    async def incoming(self, one: Host, other: Host, running: GuestSpec) -> Incoming:
        one.settings = SLOW
        one.reborn()
        return await prepare(running, one, other)

    async def test_it_can_be_hastened_only_then(self, one: Host, running: GuestSpec, incoming: Incoming) -> None:
        with pytest.raises(InvalidState):
            await one.driver.force_complete(running.server_id)
        one.settings = STUCK
        one.reborn()
        sending = asyncio.create_task(send(running, one, incoming))
        await asyncio.sleep(0.05)
        await one.driver.force_complete(running.server_id)
        async with asyncio.timeout(10):
            await sending
        with pytest.raises(InvalidState):
            await one.driver.force_complete(running.server_id)

    async def test_a_call_that_was_ended_sends_nothing_afterwards(
        self, one: Host, other: Host, running: GuestSpec, incoming: Incoming
    ) -> None:
        sending = asyncio.create_task(send(running, one, incoming))
        await asyncio.sleep(0.05)
        assert await one.driver.end_migration(running.server_id) is Whereabouts.HERE
        with pytest.raises(RescheduleError, match="ended"):
            await sending
        assert await states(running, one, other) == [RUNNING, NOSTATE]
        await send(running, one, incoming)
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]

    async def test_nor_does_one_that_was_cancelled(
        self, one: Host, other: Host, running: GuestSpec, incoming: Incoming
    ) -> None:
        sending = asyncio.create_task(send(running, one, incoming))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await states(running, one, other) == [RUNNING, NOSTATE]
        with pytest.raises(InvalidState):
            await one.driver.force_complete(running.server_id)


STEPS = pytest.mark.parametrize("writes", range(WRITES + 1))
LOOKS = pytest.mark.parametrize("looks", [False, True], ids=["unseen", "seen"])
"""Whether the target is asked about the guest in between, and so takes it in."""


@pytest.mark.usefixtures("processes")
class TestKills:
    @STEPS
    async def test_what_is_left(self, death: Death, one: Host, other: Host, running: GuestSpec, writes: int) -> None:
        await killed_after(death, writes, running, one, await prepare(running, one, other))
        assert (
            await states(running, one, other)
            == [
                [RUNNING, NOSTATE],
                [RUNNING, PAUSED],
                [SHUTDOWN, PAUSED],
                [SHUTDOWN, RUNNING],
            ][writes]
        )
        gone = writes >= 2
        assert await one.driver.end_migration(running.server_id) is [Whereabouts.HERE, Whereabouts.HANDED_OVER][gone]
        assert one.taps.up == (set() if gone else {running.ports[0].port_id})
        assert other.taps.up == ({running.ports[0].port_id} if writes else set())

    @LOOKS
    @STEPS
    async def test_a_second_call_goes_on(
        self, death: Death, one: Host, other: Host, running: GuestSpec, writes: int, looks: bool
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, writes, running, one, incoming)
        if looks:
            await other.driver.held()
        await send(running, one, incoming)
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]
        other.reborn()
        assert await states(running, other) == [RUNNING]
        assert not list((other.directory / "arriving").iterdir())

    async def test_what_came_first_is_replaced_by_what_comes_then(
        self, death: Death, one: Host, other: Host, running: GuestSpec
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, 1, running, one, incoming)
        assert await states(running, other) == [PAUSED]
        await one.driver.reset(running.server_id)
        await send(running, one, incoming)
        console = await other.driver.console_log(running.server_id, 10_000)
        assert console.count("Welcome") == 2

    @LOOKS
    @STEPS
    async def test_the_target_can_take_over_what_came_as_a_whole(
        self, death: Death, one: Host, other: Host, running: GuestSpec, writes: int, looks: bool
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, writes, running, one, incoming)
        if await one.driver.end_migration(running.server_id) is Whereabouts.HERE:
            await one.driver.stop(running.server_id, timedelta(0), ignore)  # or else it would run twice
            assert await one.driver.end_migration(running.server_id) is Whereabouts.OFF
        if looks:
            other.reborn()
        for _ in range(2):
            if writes:
                await other.driver.take_over(running.server_id)
                assert await states(running, other) == [RUNNING]
            else:
                with pytest.raises(NotFound):
                    await other.driver.take_over(running.server_id)
        if writes >= 2:
            await send(running, one, incoming)
        assert await states(running, one, other) == [SHUTDOWN, RUNNING if writes else NOSTATE]

    @LOOKS
    @STEPS
    async def test_destroy_removes_it_from_both(
        self, death: Death, one: Host, other: Host, running: GuestSpec, writes: int, looks: bool
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, writes, running, one, incoming)
        if looks:
            await other.driver.guests()
        await other.driver.destroy(running.server_id)
        with pytest.raises(RescheduleError):
            await send(running, one, incoming)
        other.reborn()
        assert await traces(other) == []
        assert await states(running, one) == [SHUTDOWN if writes >= 2 else RUNNING]
        await one.driver.destroy(running.server_id)
        one.reborn()
        assert await traces(one) == []

    @LOOKS
    @pytest.mark.parametrize("writes", [1, 2])
    async def test_nothing_but_the_two_hosts_agreement_lets_it_run_there(
        self, death: Death, one: Host, other: Host, running: GuestSpec, writes: int, looks: bool
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, writes, running, one, incoming)
        if looks:
            other.reborn()
        for call in (other.driver.start, other.driver.resume, other.driver.reset, other.driver.set_aside):
            with pytest.raises(InvalidState) as refusal:
                await call(running.server_id)
            assert refusal.value.remedy
        await other.driver.spawn(running, None, ignore)
        assert await states(running, other) == [PAUSED]
        await other.driver.stop(running.server_id, timedelta(0), ignore)
        with pytest.raises(InvalidState):
            await other.driver.start(running.server_id)
        await send(running, one, incoming)
        assert await states(running, other) == [SHUTDOWN], "it was switched off there"
        await other.driver.start(running.server_id)
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]

    @pytest.mark.parametrize("writes", range(2))
    async def test_the_target_may_die_while_it_takes_it_in(
        self,
        death: Death,
        one: Host,
        other: Host,
        running: GuestSpec,
        writes: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        apart(monkeypatch)
        await send(running, one, await prepare(running, one, other))
        death.left = writes
        with suppress(Killed):
            await other.driver.guests()
        death.left = None
        other.reborn()
        assert await states(running, one, other) == [SHUTDOWN, RUNNING]
        assert not list((other.directory / "arriving").iterdir())

    async def test_an_operators_start_takes_the_hand_over_back(
        self, death: Death, one: Host, other: Host, running: GuestSpec
    ) -> None:
        incoming = await prepare(running, one, other)
        await killed_after(death, 2, running, one, incoming)
        await other.driver.destroy(running.server_id)
        await one.driver.start(running.server_id)
        one.reborn()
        assert await one.driver.end_migration(running.server_id) is Whereabouts.HERE
        with pytest.raises(RescheduleError):
            await send(running, one, incoming)
        assert await states(running, one, other) == [RUNNING, NOSTATE]


async def test_of_a_guest_that_it_does_not_know_a_host_says_that_it_is_gone(one: Host) -> None:
    assert await one.driver.end_migration(str(uuid4())) is Whereabouts.GONE
