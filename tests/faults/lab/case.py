"""One case in the lab: a real server moves, a step is struck, and afterwards its guest runs on exactly one host."""

import asyncio
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from deploy.lab.host import Host
from hostler.client.operation import Operation
from hostler.contract.errors import HostlerError
from hostler.contract.names import server_workflow_id
from hostler.contract.servers import OperationName, Progress, Server
from hostler.contract.states import PowerState, VmState
from tests.faults.case import Case, Result, _told
from tests.faults.lab import pattern
from tests.faults.lab.cloud import BOOTS, EMPTY, LARGER, NETWORK, SMALL, LabCloud, until
from tests.faults.lab.console import Life, Said, is_right
from tests.faults.lab.watcher import RUNS, STANDS_STILL, TWICE
from tests.faults.plan import OF_MACHINES, Fault, Plan, Step, Strike, Struck
from tests.faults.site import NotQuiet

HOME, NEXT = "lab-1", "lab-2"
LIMIT = timedelta(seconds=180)
FOLLOWS = timedelta(seconds=30)
"""How long a server's row may need to follow its guest."""
BOOTS_WITHIN = timedelta(seconds=60)
AWAY_SECONDS = 10.0
"""How long a host is off or cut off, unless the operation has ended: longer than it is waited for."""
POWER = (Fault.POWER_CUT, Fault.POWER_CUT_OPPOSITE)
CABLE = (Fault.CABLE_OUT, Fault.CABLE_OUT_OPPOSITE)
OPPOSITE = (Fault.POWER_CUT_OPPOSITE, Fault.CABLE_OUT_OPPOSITE)
UNFENCED = "evacuate-unfenced"
"""An evacuation from a host that runs, and was declared down nevertheless."""
HANDOVER = "@handover"
"""A step that is struck when the guest stands still at home, and is about to run elsewhere."""
HALF_COPIED = "receive_disks@half"
"""The step that is struck when some of the disk has come for good, and more is to come."""
POLL_SECONDS = 0.1
SWITCH_OFF = ("stop_guest", "destroy_guest")
"""What a host that has come back is to be asked first, where it was declared down and its guest runs."""


@dataclass(frozen=True)
class Move:
    """An operation of the lab: what it is asked for, of which server, and what must have become of its guest.

    Without `life` the guest has no system that could say so. `writes`: it has a disk that takes a while to copy.
    `workflow` is the type of the operation, if that is not its name.
    """

    name: str
    ask: Callable[["Course"], Awaitable[Operation]]
    life: Life | None = None
    ready: "Callable[[Course], Awaitable[None]] | None" = None
    writes: bool = False
    workflow: str = ""

    @property
    def image(self) -> str:
        """What its server is made of."""
        return BOOTS if self.life else EMPTY


@dataclass
class Course:
    """The course of one case."""

    cloud: LabCloud
    move: Move
    case: Case
    result: Result
    server: Server | None = None
    lost_power: set[str] = field(default_factory=set)
    before: dict[str, list[str]] = field(default_factory=dict)
    was: Said = field(default_factory=lambda: Said(HOME))
    runs_twice_until: float = 0.0
    """Until then the guest may run twice: for ever, while its host was declared down and is only cut off."""
    seconds: dict[Step, float] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The server's UUID."""
        assert self.server is not None
        return self.server.id

    async def show(self) -> Server:
        """The server's row."""
        return await self.cloud.client.servers.show(self.id)

    async def run(self) -> None:
        """All of it."""
        await self.cloud.put_in_order()
        self.before = await asyncio.to_thread(self.cloud.traces)
        try:
            await self.make_ready()
            await self.strike_and_ask()
            if self.runs_twice_until == math.inf:
                await self.return_home()
            await self.cloud.put_in_order()
            await self.settled(self.move.life)
            if (await self.show()).status == "VERIFY_RESIZE":
                await (await self.cloud.client.servers.confirm_resize(self.id)).result(LIMIT)
                await self.settled(self.move.life and Life.GOES_ON)
            await self.audited()
        finally:
            self.cloud.disarm()
            if self.server is not None:
                await self.away_with_it()

    # Before.

    async def make_ready(self) -> None:
        """A server at home, in the state from which the operation starts."""
        servers = self.cloud.client.servers
        booting = await servers.boot(
            "web",
            flavor=SMALL,
            image=self.move.image,
            networks=[NETWORK],
            host=HOME,
            metadata={"tick": "1"},
            user_data=pattern.USER_DATA.encode() if self.move.writes else None,
        )
        self.server = await booting.result(LIMIT)
        if self.move.life:
            await until(self.counts, "the guest to count")
        if self.move.writes:
            await until(self.has_written, "the guest to write its pattern")
        if self.move.ready is not None:
            await self.move.ready(self)

    async def counts(self) -> bool:
        """Whether the guest's counter has gone on since it was last looked at."""
        former, self.was = self.was, await self.said()
        return self.was.counts_since(former)

    async def said(self) -> Said:
        """What the guest has said where it is now."""
        return Said.read((await self.show()).host or "", await self.console())

    async def has_written(self) -> bool:
        """Whether the guest has written what is to be copied."""
        return pattern.WRITTEN in await self.console()

    async def console(self) -> str:
        """The guest's console log."""
        return await self.cloud.client.servers.console_log(self.id)

    # The operation.

    async def strike_and_ask(self) -> None:
        """Carry the operation out; whatever befalls a host has been put right when this returns."""
        striking = None
        if self.case.strikes:
            workflow = self.move.workflow or self.move.name
            self.cloud.arm(Plan(workflow, server_workflow_id(self.id), self.case.strikes))
            if self.case.strikes[0].fault in OF_MACHINES:
                striking = asyncio.create_task(self.befall(self.case.strikes[0]))
        self.ended.clear()
        try:
            operation = await self.move.ask(self)
            self.result.outcome = await self.outcome(operation)
            self.ended.set()
            if striking is not None:
                done, _ = await asyncio.wait({striking}, timeout=LIMIT.total_seconds())
                if not done:
                    self.result.problems.append("it did not run: the fault did not strike")
                else:
                    striking.result()
            await self.read_history(operation.run_id)
        finally:
            self.ended.set()
            if striking is not None:
                striking.cancel()
        if self.case.strikes and not self.cloud.struck():
            self.result.problems.append(f"{self.case.fault} did not strike {self.case.step}: it did not run")

    async def outcome(self, operation: Operation) -> str:
        """How it ended.

        Raises:
            NotQuiet: it did not.
        """
        try:
            await operation.result(LIMIT)
        except HostlerError as error:
            self.result.history.append(f"the operation failed: {error}")
            return "failed"
        except TimeoutError:
            await self.read_history(operation.run_id)
            raise NotQuiet(f"the operation has not ended after {LIMIT.total_seconds():g} s") from None
        return "completed"

    async def befall(self, strike: Strike) -> None:
        """Switch a host off or on, or pull out its cable, at the moment of the strike; and put that right later."""
        struck = await self.moment(strike)
        if struck is None:
            return
        name = await self.victim(strike.fault, struck)
        host = self.cloud.hosts[name]
        self.note(f"{strike.fault}: {name}")
        if strike.fault is Fault.RETURNED:
            await (self.return_home() if self.runs_twice_until else self.switch_on(host))
            self.cloud.deal()
            return
        if strike.fault in POWER:
            self.lost_power.add(name)
        await asyncio.to_thread(host.kill if strike.fault in POWER else host.cut)
        self.cloud.deal()
        with suppress(TimeoutError):
            async with asyncio.timeout(AWAY_SECONDS):
                await self.ended.wait()
        self.note(f"put right: {name}")
        await (self.switch_on(host) if strike.fault in POWER else asyncio.to_thread(host.join))

    async def switch_on(self, host: Host) -> None:
        """Start a host; returns when it has registered: until then it may be taken for what it was before."""
        await asyncio.to_thread(host.start)
        await until(lambda: asyncio.to_thread(lambda: host.registered), f"{host.name} to register")

    async def return_home(self) -> None:
        """Put the cable of the guest's first host back in; returns when that has registered. It has run all the time.

        From then on nothing runs twice: to see to that is the first thing that it is asked to do.
        """
        since = datetime.now(UTC)
        await asyncio.to_thread(self.cloud.hosts[HOME].join)
        registration = await self.cloud.registration(HOME, since)
        self.runs_twice_until = registration.ended
        self.note(f"{HOME} has registered, and was asked: {', '.join(registration.asked) or 'nothing'}")
        if not registration.asked or registration.asked[0] not in SWITCH_OFF:
            self.result.problems.append(
                f"{HOME} was asked for {registration.asked or 'nothing'}, with its guest running"
            )

    async def moment(self, strike: Strike) -> Struck | None:
        """Wait until the strike is due; None when it will not be."""
        while not (struck := self.cloud.struck()):
            if self.ended.is_set():
                return None
            await asyncio.sleep(POLL_SECONDS)
        if self.case.step.endswith(HANDOVER):
            await self.handed_over(time.time())
        elif self.case.step == HALF_COPIED:
            await self.half_copied()
        elif strike.delay:
            await asyncio.sleep(strike.delay)
        while strike.delay is None and not self.ended.is_set() and not any(one.done for one in self.cloud.struck()):  # noqa: ASYNC110 - they are files
            await asyncio.sleep(POLL_SECONDS)
        return struck[0]

    async def handed_over(self, began: float) -> None:
        """Wait until the guest stands still at home, and is about to run elsewhere."""
        while not self.ended.is_set():
            seen = [(one.host, one.what) for one in self.cloud.seen(self.id) if one.at > began]
            if seen and seen[-1] == (HOME, STANDS_STILL):
                return
            await asyncio.sleep(POLL_SECONDS / 2)

    async def half_copied(self) -> None:
        """Wait until a first piece of the disk is where it goes; what is struck then must go on from there."""
        while not self.ended.is_set() and not any(one.done for one in self.cloud.struck()):
            for host in self.cloud.hosts.values():
                if (count := pattern.arrived(host, self.id)) > 0:
                    self.note(f"{host.name} has {count} bytes of the disk")
                    return
            await asyncio.sleep(POLL_SECONDS / 4)

    async def victim(self, fault: Fault, struck: Struck) -> str:
        """Whom it befalls."""
        hosts = {host.id: host.name for host in await self.cloud.client.hosts.list()}
        own = hosts.get(Step(struck.activity, 1, struck.queue).host_id or "", "")
        if fault is Fault.RETURNED:
            return HOME
        if fault not in OPPOSITE:
            return own
        if own != HOME and HOME not in self.lost_power:
            return HOME
        return await self.target(struck.run_id)

    async def target(self, run_id: str) -> str:
        """Where the server is to go, or has gone."""
        handle = self.cloud.connection.temporal.get_workflow_handle(server_workflow_id(self.id), run_id=run_id)
        progress: Progress = await handle.query("progress", result_type=Progress)
        claims = [step.host for step in progress.steps if step.name == "claim_resources" and step.host]
        host = claims[-1] if claims else (await self.show()).host
        return host if host not in (None, HOME) else NEXT

    def note(self, text: str) -> None:
        """Remember when something was done."""
        self.result.history.append(f"{time.time() % 1000:.1f} {text}")

    # Afterwards.

    async def settled(self, life: Life | None) -> None:
        """Wait until the guest, its row and the hosts say the same; and see what has become of the guest."""
        wrong: list[str] = []

        async def right() -> bool:
            wrong[:] = await self.unlike()
            return not wrong

        try:
            await until(right, "the server's row to follow its guest", FOLLOWS)
        except NotQuiet:
            self.result.problems += wrong
            return
        server = await self.show()
        if life and self.cloud.whereabouts(self.id).get(server.host or "") == RUNS:
            await self.lives(life, lost_power=server.host in self.lost_power)

    async def unlike(self) -> list[str]:
        """What is not as it must be."""
        server, guest = await self.show(), self.cloud.whereabouts(self.id)
        said = f"{server.status} on {server.host}"
        runs = sorted(host for host, what in guest.items() if what == RUNS)
        found = [] if server.task_state is None else [f"its row says that it is {server.task_state}"]
        if runs and (runs != [server.host] or server.vm_state not in (VmState.ACTIVE, VmState.RESIZED)):
            found.append(f"the guest runs on {', '.join(runs)}, and its row says {said}")
        says_so = server.vm_state is VmState.ACTIVE or server.power_state is PowerState.RUNNING
        if not runs and (self.unscathed(server) or says_so):
            found.append(f"the guest does not run, and its row says {said}; it is {guest or 'nowhere'}")
        if server.host not in guest:
            found.append(f"{server.host} has no guest, and its row says {said}")
        elsewhere = [host for host in self.cloud.hosts if host != server.host]
        if server.vm_state is not VmState.RESIZED:
            found += [f"{host} has a guest, which {guest[host]}" for host in elsewhere if host in guest]
            traces = await asyncio.to_thread(self.cloud.traces)
            for host in elsewhere:
                found += [f"{host} has: {line}" for line in traces[host] if line not in self.before[host]]
        return found

    def unscathed(self, server: Server) -> bool:
        """Whether there is no reason for its guest to be off.

        It stays off, and its server in error, where it might have been running on a host that did not answer.
        """
        silent = any(strike.fault in (*POWER, *CABLE) for strike in self.case.strikes)
        return server.host not in self.lost_power and not (silent and server.vm_state is VmState.ERROR)

    async def lives(self, life: Life, *, lost_power: bool) -> None:
        """See that the guest counts, and that what it says is what must have become of it."""
        was, right = self.was, False
        self.was = Said(was.host)

        async def says_so() -> bool:
            nonlocal right
            counts = await self.counts()
            right = is_right(life, was, self.was, lost_power=lost_power)
            return right and counts

        try:
            await until(says_so, "", BOOTS_WITHIN)
        except NotQuiet:
            told = "does not count" if right else str(life)
            self.result.problems.append(f"the guest {told}: it had said {was}, and has said {self.was}")
            self.was = was
            return
        if self.move.writes:
            host = self.cloud.hosts[self.was.host]
            missing = await asyncio.to_thread(pattern.complaint, host, self.id)
            self.result.problems += [f"its disk has lost what it had written: {missing}"] if missing else []

    async def audited(self) -> None:
        """See that an audit finds nothing."""
        report = await self.cloud.client.audit(heal=False)
        self.result.differences += [
            f"audit: {one.kind} of {one.subject}: found {one.found}, expected {one.expected}" for one in report.findings
        ]
        self.result.problems += [f"not audited: {one}" for one in report.not_audited]

    async def away_with_it(self) -> None:
        """Delete the server, and see that it was never in two places, and that nothing is left of it."""
        try:
            await self.cloud.put_in_order()  # where the course was cut short
        except NotQuiet as told:
            self.result.problems.append(str(told))
        await (await self.cloud.client.servers.delete(self.id)).result(LIMIT)
        seen = self.cloud.seen(self.id)
        self.result.problems += [f"at {one}" for one in seen if one.what == TWICE and one.at > self.runs_twice_until]

        async def gone() -> bool:
            after = await asyncio.to_thread(self.cloud.traces)
            left[:] = [
                f"left on {host}: {line}"
                for host, lines in after.items()
                for line in lines
                if line not in self.before[host]
            ]
            places = self.cloud.whereabouts(self.id)
            left.extend(f"left on {host}: a guest, which {what}" for host, what in places.items())
            return not left

        left: list[str] = []
        with suppress(NotQuiet):
            await until(gone, "", timedelta(seconds=5))
        self.result.differences += left
        self.result.logs["guest"] = [str(one) for one in self.cloud.seen(self.id)]

    async def read_history(self, run_id: str) -> None:
        """Its steps, how long each took, and in short what happened."""
        handle = self.cloud.connection.temporal.get_workflow_handle(server_workflow_id(self.id), run_id=run_id)
        names = {host.id: host.name for host in await self.cloud.client.hosts.list()}
        occurrences: dict[str, int] = {}
        lines: dict[int, tuple[Step, float, str]] = {}
        with suppress(RPCError):
            async for event in handle.fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    scheduled = event.activity_task_scheduled_event_attributes
                    name = scheduled.activity_type.name
                    occurrences[name] = occurrences.get(name, 0) + 1
                    step = Step(name, occurrences[name], scheduled.task_queue.name)
                    where = names.get(step.host_id or "", "control")
                    at = _seconds(event)
                    lines[event.event_id] = (step, at, f"{at % 1000:.1f} {step.name} on {where}: ")
                elif (told := _told(event)) is not None and told[0] in lines:
                    step, began, line = lines[told[0]]
                    lines[told[0]] = (step, began, line + told[1])
                    self.seconds[step] = _seconds(event) - began
        self.result.steps = [step for step, _, _ in lines.values()]
        self.result.history += [line for _, _, line in lines.values()]
        self.result.history.sort(key=lambda line: (not line[:1].isdigit(), line))


def _seconds(event: Any) -> float:
    return float(event.event_time.seconds) + float(event.event_time.nanos) / 1e9


async def _lose_its_host(course: Course) -> None:
    """The server's host is off, and somebody has said so."""
    course.lost_power.add(HOME)
    await asyncio.to_thread(course.cloud.hosts[HOME].kill)
    await course.cloud.until_down(HOME)
    await course.cloud.client.hosts.declare_down(HOME, "the matrix has switched it off")


async def _lose_its_cable(course: Course) -> None:
    """The server's host is cut off, and somebody has said that it is off; the guest runs on."""
    course.runs_twice_until = math.inf
    await asyncio.to_thread(course.cloud.hosts[HOME].cut)
    await course.cloud.until_down(HOME)
    await course.cloud.client.hosts.declare_down(HOME, "the matrix has pulled out its cable, and lies")


async def _resize_it(course: Course) -> None:
    await (await course.cloud.client.servers.resize(course.id, LARGER)).result(LIMIT)
    await until(course.counts, "the guest to count on its new host")


async def _evacuate(course: Course) -> Operation:
    return await course.cloud.client.servers.evacuate(course.id)


MOVES = {
    one.name: one
    for one in (
        Move(
            OperationName.LIVE_MIGRATE,
            lambda course: course.cloud.client.servers.live_migrate(course.id),
            Life.GOES_ON,
        ),
        Move(
            OperationName.RESIZE,
            lambda course: course.cloud.client.servers.resize(course.id, LARGER),
            Life.FROM_ITS_DISK,
            writes=True,
        ),
        Move(
            OperationName.CONFIRM_RESIZE,
            lambda course: course.cloud.client.servers.confirm_resize(course.id),
            Life.GOES_ON,
            _resize_it,
        ),
        Move(OperationName.EVACUATE, _evacuate, Life.ANEW, _lose_its_host),
        Move(UNFENCED, _evacuate, Life.ANEW, _lose_its_cable, workflow=OperationName.EVACUATE),
    )
}


async def run_case(cloud: LabCloud, move: Move, case: Case) -> tuple[Result, dict[Step, float]]:
    """Run one case; also how long each step took. The lab is in order again if it can be."""
    result, began = Result(case), time.monotonic()
    course = Course(cloud, move, case, result)
    try:
        await course.run()
    except (HostlerError, NotQuiet, TimeoutError) as told:
        result.problems.append(f"{type(told).__name__}: {told}")
    except Exception:
        result.problems.append(traceback.format_exc())
    result.seconds = time.monotonic() - began
    return result, course.seconds
