"""Which guests may leave a host, and which wait meanwhile; libvirt's part is played."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import libvirt
import pytest

from drivers.blocking import BlockingCalls
from drivers.hypervisor import reporting
from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt import gate
from drivers.hypervisor.libvirt.gate import Gate
from hostler.contract.errors import InvalidState, NotFound, RescheduleError, Unavailable
from hostler.contract.states import PowerState

JOB = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
MOMENT = timedelta(seconds=0.01)


class Guest:
    """A guest that runs here. `travels`: libvirt sends it, whoever began that."""

    def __init__(self, *, travels: bool = False) -> None:
        self.uuid = str(uuid4())
        self.travels = travels
        self.state_now, self.reason = libvirt.VIR_DOMAIN_RUNNING, 0

    def state(self) -> list[int]:
        return [self.state_now, self.reason]

    def jobStats(self, flags: int = 0) -> dict[str, Any]:  # noqa: N802 - libvirt's name
        return JOB if self.travels else {}


class Host:
    """Its guests, those that its gate has let through, in order, and what those that wait have said."""

    def __init__(self, blocking: BlockingCalls, places: int, *guests: Guest) -> None:
        self.guests = {guest.uuid: guest for guest in guests}
        self.answers = True
        self.left: list[str] = []
        self.said: dict[str, list[str]] = {}
        self.gate = Gate(places, self, blocking)  # type: ignore[arg-type]  # its domains are played
        self._away: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def get(self, server_id: str) -> Guest:
        if not self.answers:
            raise Unavailable("libvirt does not answer")
        if server_id not in self.guests:
            raise NotFound("no such guest")
        return self.guests[server_id]

    def held(self) -> list[HeldGuest]:
        return [HeldGuest(server_id, PowerState.RUNNING, None) for server_id in self.guests]

    def sends(self, guest: Guest) -> asyncio.Task[None]:
        """Have it leave; it takes until `arrives` says that it is away."""
        self.guests[guest.uuid] = guest
        self._away[guest.uuid] = asyncio.Event()
        task = asyncio.create_task(self._send(guest.uuid))
        self.tasks.append(task)
        return task

    def arrives(self, guest: Guest) -> None:
        guest.travels = False
        self._away[guest.uuid].set()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, RescheduleError):
                await task

    async def _send(self, server_id: str) -> None:
        said = self.said.setdefault(server_id, [])
        async with self.gate.passing(server_id, said.append):
            self.left.append(server_id)
            await self._away[server_id].wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LOOK_INTERVAL", MOMENT)
    monkeypatch.setattr(reporting, "INTERVAL", MOMENT)


@pytest.fixture
async def blocking() -> AsyncIterator[BlockingCalls]:
    calls = BlockingCalls("test", 4)
    yield calls
    await calls.close()


@pytest.fixture
async def host(blocking: BlockingCalls) -> AsyncIterator[Host]:
    host = Host(blocking, 2)
    yield host
    await host.close()


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not seen():  # noqa: ASYNC110 - it is played
            await asyncio.sleep(MOMENT.total_seconds())


async def a_while() -> None:
    """Nothing more is to be expected."""
    await asyncio.sleep(8 * MOMENT.total_seconds())


async def a_line(host: Host, number: int) -> list[Guest]:
    """So many guests, of which two leave and the others wait, one after the other."""
    guests = [Guest() for _ in range(number)]
    for position, guest in enumerate(guests):
        host.sends(guest)
        await until(lambda: len(host.left) + len(host.gate._waiting) > position)  # noqa: B023 - it is called at once
    await until(lambda: len(host.left) == 2)
    return guests


async def test_so_many_leave_at_once_and_the_others_follow_in_the_order_in_which_they_came(host: Host) -> None:
    guests = await a_line(host, 5)
    order = [guest.uuid for guest in guests]
    for number, guest in enumerate(guests[:3], start=2):
        await a_while()
        assert host.left == order[:number]
        host.arrives(guest)
        await until(lambda: len(host.left) > number)  # noqa: B023 - it is called at once
    assert host.left == order


async def test_whoever_comes_when_a_place_is_free_does_not_overtake_those_that_wait(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second, third = await a_line(host, 3)
    monkeypatch.setattr(gate, "LOOK_INTERVAL", 20 * MOMENT)
    await a_while()
    newcomer = Guest()
    host.arrives(first)
    host.sends(newcomer)
    await until(lambda: len(host.left) > 2)
    assert host.left[2:] == [third.uuid]


async def test_those_that_wait_say_so_again_and_again_until_they_leave(host: Host) -> None:
    first, _second, third = await a_line(host, 3)
    said = host.said[third.uuid]
    await until(lambda: said.count("waits until another guest has left (2 leave now)") >= 5)
    host.arrives(first)
    await until(lambda: third.uuid in host.left)
    known = len(said)
    await a_while()
    assert len(said) == known


async def test_one_whose_migration_is_under_way_already_goes_on_at_once_and_counts(host: Host) -> None:
    first, _second, third = await a_line(host, 3)
    one_more = Guest(travels=True)
    host.sends(one_more)
    await until(lambda: host.left[2:] == [one_more.uuid])
    assert host.said[one_more.uuid] == []
    host.arrives(first)
    await a_while()
    assert third.uuid not in host.left
    host.arrives(one_more)
    await until(lambda: host.left[3:] == [third.uuid])


async def test_those_that_a_former_worker_has_sent_count_before_anybody_follows_them_again(host: Host) -> None:
    first, second, other = Guest(travels=True), Guest(travels=True), Guest()
    host.guests = {first.uuid: first, second.uuid: second}
    host.sends(other)
    await until(lambda: "waits until another guest has left (2 leave now)" in host.said.get(other.uuid, []))
    host.sends(first)  # followed again, it counts once
    await until(lambda: host.left == [first.uuid])
    second.travels = False
    await until(lambda: host.left == [first.uuid, other.uuid])


async def test_what_post_copy_has_left_broken_is_in_nobodys_way(host: Host) -> None:
    broken, other = [Guest(travels=True), Guest(travels=True)], Guest()
    for one in broken:
        one.state_now, one.reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED
    host.guests = {one.uuid: one for one in broken}
    host.sends(other)
    await until(lambda: host.left == [other.uuid])


async def test_one_that_is_cancelled_while_it_waits_leaves_the_line(host: Host) -> None:
    first, _second, _third, fourth = await a_line(host, 4)
    waits = host.tasks[2]
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    host.arrives(first)
    await until(lambda: host.left[2:] == [fourth.uuid])


async def test_so_does_one_that_is_dismissed_which_hears_of_it(host: Host) -> None:
    first, second, third = await a_line(host, 3)
    for guest in (first, third):  # it changes nothing for one that leaves
        host.gate.dismiss(guest.uuid)
    with pytest.raises(RescheduleError, match="ended before it had begun"):
        await host.tasks[2]
    host.arrives(first)
    await host.tasks[0]
    assert host.left == [first.uuid, second.uuid]


@pytest.mark.parametrize("state", [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED, None])
async def test_one_that_ends_while_it_waits_waits_no_longer(host: Host, state: int | None) -> None:
    *_, fourth = await a_line(host, 4)
    if state is None:
        del host.guests[fourth.uuid]
    else:
        fourth.state_now = state
    await until(lambda: host.left[2:] == [fourth.uuid])
    host.arrives(fourth)
    await a_while()
    assert len(host.left) == 3, "it has taken nobody's place, and left none"


async def test_those_that_wait_go_on_waiting_while_libvirt_is_started_again(host: Host) -> None:
    first, _second, third = await a_line(host, 3)
    host.answers = False
    host.arrives(first)
    await a_while()
    assert (host.tasks[2].done(), third.uuid in host.left) == (False, False)
    host.answers = True
    await until(lambda: host.left[2:] == [third.uuid])


async def test_one_that_fails_gives_its_place_back(host: Host) -> None:
    *_, third = await a_line(host, 3)
    host.tasks[0].cancel()
    await until(lambda: host.left[2:] == [third.uuid])


async def test_whoever_asks_for_haste_while_it_waits_is_told_why_that_cannot_be(host: Host) -> None:
    first, _second, third = await a_line(host, 3)
    host.gate.refuse_waiting(first.uuid)
    with pytest.raises(InvalidState, match=r"not on its way yet: it waits until another .* \(2 leave now\)") as refusal:
        host.gate.refuse_waiting(third.uuid)
    assert "host.parallel_live_migrations" in str(refusal.value.remedy)
