"""One case: the operation runs in a cloud of its own, the fault strikes, and the world must be one of two."""

import asyncio
import re
import shutil
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlmodel import delete, select
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from hostler.client.operation import begin
from hostler.contract.audit import AUDIT
from hostler.contract.errors import HostlerError
from hostler.contract.names import CONTROL_QUEUE, host_queue
from hostler.contract.servers import Choice, OperationName, OperationRequest, Progress, Server, StepStatus
from hostler.contract.states import PowerState, VmState
from models import Host, OwedWork
from tests.faults.host_work import half_way, how_it_ended, where_they_run
from tests.faults.operations import FORGOTTEN, NoFiller, Operation, Scene, plain_operations
from tests.faults.plan import KILLS, Fault, Plan, Step, Strike
from tests.faults.site import Cell, NotQuiet, Site, open_cell
from tests.faults.world import OWED, UNDER_WAY, World, has_failed, is_gone, is_like, roles_of

LIMIT = timedelta(seconds=180)
"""Within which an operation must have ended, whatever befalls it."""
LOG_LINES = 40
ORPHANED_IMAGE = re.compile(r"\+ .*: files: (.*/)?cache/<(former )?image [^>]*>(: |$)")
"""How a difference reads that is a whole image in a host's cache; one that is not whole has another name."""
FORWARD = "tried again"
"""How the note of a step begins that is tried until it works."""


@dataclass(frozen=True)
class Case:
    """One operation with one fault at one step; an undo is reached by a fault at another step before it."""

    operation: str
    step: str
    fault: str
    strikes: tuple[Strike, ...] = ()

    @property
    def name(self) -> str:
        """By which it is run again."""
        return f"{self.operation}/{self.step}/{self.fault}" if self.strikes else f"{self.operation}/faultless"


@dataclass
class Faultless:
    """How an operation goes by itself: its steps, and the worlds before and after it.

    `origin` is the world before there was the server on which it is carried out, `ended_in` (of work on a host) that
    while the host that has failed is dead.
    """

    steps: list[Step]
    origin: World
    former: World
    success: World
    ended_in: World | None = None


@dataclass
class Result:
    """What became of a case. `steps` are those of the run, `aftermath` those that were begun after the first strike."""

    case: Case
    problems: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    outcome: str = ""
    seconds: float = 0.0
    history: list[str] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    aftermath: list[Step] = field(default_factory=list)
    undos: list[Step] = field(default_factory=list)
    faultless: Faultless | None = None

    @property
    def passed(self) -> bool:
        """Whether all was as it must be."""
        return not self.problems and not self.differences


async def run_case(
    site: Site, directory: Path, slot: int, operation: Operation, case: Case, known: Faultless | None = None
) -> Result:
    """Run one case. Without `known`, this is the faultless run that the others are measured by."""
    result, began = Result(case), time.monotonic()
    standby = case.strikes and case.strikes[-1].fault is Fault.DEAD
    try:
        async with open_cell(site, directory, slot, controls=2 if standby else 1) as cell:
            try:
                await _Course(cell, operation, case, known, result).run()
            except (NoFiller, NotQuiet) as told:
                result.problems.append(str(told))
            except (HostlerError, RPCError) as error:
                result.problems.append(f"{type(error).__name__}: {error}")
    except Exception:
        result.problems.append(traceback.format_exc())
    except asyncio.CancelledError:
        # Temporal's client also raises it when a call of ours is cancelled by the other side.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        result.problems.append(traceback.format_exc())
    if not result.passed:
        result.logs = _logs(directory)
    shutil.rmtree(directory, ignore_errors=True)
    result.seconds = time.monotonic() - began
    return result


@dataclass
class _Course:
    cell: Cell
    operation: Operation
    case: Case
    known: Faultless | None
    result: Result
    origin: World | None = None
    ended_in: World | None = None

    async def run(self) -> None:
        await self.make_ready()
        former = await self.look_in_peace(owing=self.operation.is_its_hosts)
        if self.known is not None and (strange := former.differences(self.known.former)):
            self.result.problems.append("the world before is not that of the faultless run")
            self.result.differences += strange
            return
        if self.case.strikes:
            workflow_id = self.operation.workflow_id(self.cell.scene)
            self.cell.book.arm(Plan(self.operation.workflow, workflow_id, self.case.strikes))
            self.cell.stand_by()
            self.cell.watch(restart=self.case.strikes[-1].fault is not Fault.DEAD)
        run = await self.ask()
        try:
            await self.follow(run, former)
        finally:
            await self.read_history(run)

    async def look_in_peace(self, *, owing: bool = False) -> World:
        """The world when nothing goes on. Just then a host may register once more, or report a power state."""
        world = World({})

        async def seen() -> bool:
            nonlocal world
            await self.cell.quiet(owing=owing)
            world = await self.cell.look()
            goes_on = any(where.endswith(UNDER_WAY) for where in world.sections)
            return not goes_on and (owing or OWED not in world.sections)

        await self.cell.until(seen, "a look while nothing goes on", LIMIT)
        return world

    async def follow(self, run: WorkflowHandle[Any, Any], former: World) -> None:
        """See how it ends, and what the world is then."""
        status = await self.ended(run)
        if self.operation.is_host_work:
            status = await self.work_to_the_end(run)
        if self.cell.dead & self.cell.hosts.keys():
            # What is on the dead is the next audit's, or has been looked at.
            if self.known is not None and not (self.operation.heals or self.operation.is_host_work):
                await self.look_beside_the_dead(status)
            self.cell.revive()
        if self.operation.is_its_hosts:  # whoever is interrupted registers anew
            status = await self.registered(run.id)
        if self.operation.heals:
            await self.audit()  # what a fault kept it from mending, the next one does
        world = await self.look_in_peace()
        if self.known is not None and self.compare(world, status):
            await self.audit(heal=False)  # a host takes in what has come when somebody asks what it has
            world = await self.look_in_peace()
        if self.known is not None and has_orphaned_images(self.compare(world, status)):
            await self.audit()  # whose they are, once no host's guests need them
            world = await self.look_in_peace()
        self.result.outcome = status.name.lower().replace("_", "-")
        if self.known is None:
            if status is not WorkflowExecutionStatus.COMPLETED:
                self.result.problems.append(f"without a fault it ended as {self.result.outcome}")
            self.result.faultless = Faultless(self.result.steps, self.origin or former, former, world, self.ended_in)
            return
        self.check_strikes()
        self.result.differences += self.compare(world, status)

    async def work_to_the_end(self, run: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus:
        """Ask for work on a host once more where it has not done all; see what it leaves, and says, each time."""
        for again in (True, False):
            end = await how_it_ended(self.cell.connection, run, self.operation.definition)
            self.result.history.append(f"it ended: {end.said}")
            self.result.problems += end.problems
            await self.cell.until(self.only_the_dead_owe, "the living to do what they owe")
            await self.cell.quiet(owing=True)
            self.ended_in = await self.cell.look()
            self.result.differences += where_they_run(self.ended_in, self.cell.hosts, end.complete)
            if self.known is not None:
                former, ended = self.known.former, self.known.ended_in
                self.result.differences += half_way(self.ended_in, former, ended, end.complete, sorted(self.cell.dead))
            if end.complete:
                break
            if not again or self.known is None:
                self.result.problems.append(f"it has not done all: {end.said}")
                break
            run = await self.ask()
            await self.ended(run)
        return await self.status(run)

    async def audit(self, *, heal: bool = True) -> None:
        """Have everything audited, and mended."""

        async def audited() -> bool:
            return not (await self.cell.client.audit(heal=heal)).not_audited

        await self.cell.until(audited, "every host to be audited")

    # Before.

    async def make_ready(self) -> None:
        """Make what the operation works on, by the operations that make such things."""
        known, way, returns = plain_operations(), self.operation.way(self.cell.scene), self.operation.is_its_hosts
        beside = self.operation.beside()
        self.cell.by_name = bool(beside)
        for one in (*way, *([] if returns else [self.operation])):
            one.request(self.cell.scene)
        for need in self.cell.scene.needs:
            await self.succeed(known[need])
        if way:
            await self.cell.quiet()
            self.origin = await self.cell.look()
        for one in way:
            await self.succeed(one)
        for one in beside:
            await self.succeed(one, self.cell.scene.beside())
        if self.operation.is_host_work:
            self.cell.scene.host_id = await self.host_of_all()
        if returns:
            await self.have_a_host_owe()
        if self.operation.leaves_the_dead:
            await self.have_its_host_die()
        if self.operation.follows_silence:
            row = await self.kill_its_host()
            if self.operation.takes_ones_word:
                await self.cell.switch_off(str(row.host))
        if self.operation.after == FORGOTTEN:
            with self.cell.database.write() as session:
                session.exec(delete(OwedWork))
        if self.operation.workflow == AUDIT:  # the image in the caches is nobody's then
            await self.cell.client.images.delete(self.cell.scene.id("image"))

    async def have_a_host_owe(self) -> None:
        """The server's host dies, and then the server is deleted: so its host will register with work to do."""
        await self.cell.look()  # while there are rows that say what its host has
        row = await self.kill_its_host()
        await (await self.cell.client.servers.delete(row.id)).result(LIMIT)

    async def have_its_host_die(self) -> None:
        """The power of the server's host fails, guests and all, and that is known."""
        row = await self.kill_its_host()
        assert row.host is not None
        await self.cell.switch_off(row.host)
        await self.cell.client.hosts.declare_down(row.host, "the matrix has switched it off")

    async def kill_its_host(self) -> Server:
        """Have the server's host die; returns when it is known to be down."""
        row = await self.cell.client.servers.show(self.cell.scene.id("server"))
        assert row.host is not None
        assert row.host_id is not None
        self.cell.scene.host_id = row.host_id
        self.cell.dead.add(row.host)
        self.cell.hosts[row.host].kill()
        self.cell.book.leave(host_queue(row.host_id))
        await self.cell.until_down(row.host)  # nobody shall begin to ask it for what it will owe
        return row

    async def host_of_all(self) -> str:
        """The UUID of the host that has all servers."""
        rows = await self.cell.client.servers.list()
        [host_id] = {row.host_id for row in rows}
        assert host_id is not None
        return host_id

    async def succeed(self, operation: Operation, scene: Scene | None = None) -> None:
        """Carry out an operation that is not the one in question."""
        run = await self.ask(operation, scene)
        status = await self.ended(run)
        if status is not WorkflowExecutionStatus.COMPLETED:
            raise NotQuiet(f"to get ready, {operation.name} ended as {status.name}")

    # The operation.

    async def ask(self, operation: Operation | None = None, scene: Scene | None = None) -> WorkflowHandle[Any, Any]:
        """Ask for it, as clients do; a handle of its run, whether it was accepted or not."""
        operation, scene = operation or self.operation, scene or self.cell.scene
        temporal = self.cell.temporal
        workflow_id = operation.workflow_id(scene)
        if operation.is_its_hosts:
            return await self.start_the_host(workflow_id)
        request = operation.request(scene)
        if not isinstance(request, OperationRequest):
            handle = await temporal.start_workflow(
                operation.workflow,
                request,
                id=workflow_id,
                task_queue=CONTROL_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            )
            return temporal.get_workflow_handle(workflow_id, run_id=handle.first_execution_run_id)
        try:
            accepted = await begin(
                self.cell.connection,
                OperationName(operation.workflow),
                request.model_copy(update={"request_id": scene.id(f"{operation.name} request for {scene.name}")}),
                summary=operation.name,
                server_name=scene.name,
            )
            return temporal.get_workflow_handle(workflow_id, run_id=accepted.run_id)
        except HostlerError as refusal:
            struck = self.cell.book.struck()
            if not struck:
                raise
            self.result.history.append(f"refused: {refusal}")
            return temporal.get_workflow_handle(workflow_id, run_id=struck[0].run_id)

    async def start_the_host(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        """Registering is what a host does when its worker starts."""
        handle = self.cell.temporal.get_workflow_handle(workflow_id)
        before = (await handle.describe()).run_id
        name = self.cell.host_ids()[self.cell.scene.host_id]
        self.cell.revive()
        found: list[str] = []

        async def begun() -> bool:
            run_id = (await handle.describe()).run_id
            found[:] = [run_id]
            return run_id != before

        await self.cell.until(begun, f"{name} to register")
        return self.cell.temporal.get_workflow_handle(workflow_id, run_id=found[0])

    async def ended(self, run: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus:
        """How the run ended; what it went on as has ended too."""
        waiting = asyncio.ensure_future(run.result())
        try:
            async with asyncio.timeout(LIMIT.total_seconds()):
                while not (await asyncio.wait([waiting], timeout=0.5))[0]:
                    if self.operation.holds:
                        await self.decide(run)
                    if await self.waits_for_the_dead(run):
                        self.cell.revive()
                    if self.own_host_is_dead():
                        waiting.cancel()
                        return WorkflowExecutionStatus.RUNNING  # it can only wait for that host
                with suppress(WorkflowFailureError):
                    await waiting
        except TimeoutError:
            raise NotQuiet(f"the operation has not ended after {LIMIT.total_seconds():g} s") from None
        return await self.status(run)

    async def decide(self, run: WorkflowHandle[Any, Any]) -> None:
        """What an operator does about an operation that holds: elsewhere where that helps, else once more."""
        with suppress(RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError, HostlerError):
            progress = await run.query("progress", result_type=Progress, rpc_timeout=timedelta(seconds=2))
            if progress.hold is None:
                return
            server, operations = progress.server_id, self.cell.client.operations
            if Choice.MOVE in progress.hold.choices:
                others = [name for name in self.cell.hosts if name not in (progress.hold.host, *self.cell.dead)]
                await operations.move(server, host=others[0], by="the matrix")
            else:
                await operations.retry(server, by="the matrix")

    async def waits_for_the_dead(self, run: WorkflowHandle[Any, Any]) -> bool:
        """Whether the operation has passed the point of no return, and can only go on with a host that is dead."""
        if self.operation.is_host_work or not self.cell.dead & self.cell.hosts.keys():
            return False
        with suppress(RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            progress = await run.query("progress", result_type=Progress, rpc_timeout=timedelta(seconds=2))
            running = [
                step for step in progress.steps if step.status is StepStatus.RUNNING and step.host in self.cell.dead
            ]
            return any((step.note or "").startswith(FORWARD) for step in running)
        return False

    def own_host_is_dead(self) -> bool:
        """Whether the operation is that of a host that is dead."""
        if not (self.operation.is_its_hosts and self.cell.dead):
            return False
        return self.cell.host_ids().get(self.cell.scene.host_id) in self.cell.dead

    async def registered(self, workflow_id: str) -> WorkflowExecutionStatus:
        """How the host's last registration ended, once one has succeeded."""
        latest = self.cell.temporal.get_workflow_handle(workflow_id)

        async def succeeded() -> bool:
            return await self.status(latest) is WorkflowExecutionStatus.COMPLETED

        await self.cell.until(succeeded, "the host to register")
        return WorkflowExecutionStatus.COMPLETED  # by now it may be asked once more

    async def status(self, run: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus:
        """As Temporal has it."""
        status = (await run.describe()).status
        assert status is not None
        return status

    # Afterwards.

    def check_strikes(self) -> None:
        """See that the faults struck where they were meant to."""
        struck = self.cell.book.struck()
        for number, strike in enumerate(self.case.strikes):
            hit = [one for one in struck if one.number == number]
            if not hit:
                self.result.problems.append(f"{strike.fault} did not strike {strike.activity}: it did not run")
            for one in hit:
                if (one.workflow, one.activity) != (self.operation.workflow, strike.activity):
                    self.result.problems.append(f"{strike.fault} struck {one.activity} of {one.workflow}")
        killed = sum(strike.fault in KILLS for strike in self.case.strikes)
        if len(self.cell.deaths) != killed:
            died = ", ".join(self.cell.deaths) or "nobody"
            self.result.problems.append(f"{killed} worker(s) were to die, and there died {died}")

    async def look_beside_the_dead(self, status: WorkflowExecutionStatus) -> None:
        """While the host is dead, all but its remains must be right, and they must be somebody's to see to."""
        if status is WorkflowExecutionStatus.RUNNING:
            return
        if self.operation.leaves_the_dead:  # and another may only have been slow
            await self.cell.until(self.only_the_dead_owe, "the living to do what they owe")
        world = await self.cell.look()
        names = sorted(self.cell.dead & self.cell.hosts.keys())
        with self.cell.database.read() as session:
            roles = roles_of(session, self.cell.scene.id("server"))
            owing = session.exec(select(Host.name).join(OwedWork)).all()
        labels = [roles(name) for name in names]
        found = self.compare(world.without(*labels), status, labels)
        self.result.differences += [f"while {', '.join(names)} is dead: {line}" for line in found]
        remains = [one.on(*labels) for one in self.expected(status)]
        if world.on(*labels) not in remains and OWED not in world.sections:
            self.result.problems.append(f"{', '.join(names)} is dead and has remains of it, but owes nothing")
        for name in names:
            shown = await self.cell.client.hosts.show(name)
            if (name in owing) != (shown.owed > 0):
                self.result.problems.append(f"`hostler host show {name}` says that it owes {shown.owed}")

    async def only_the_dead_owe(self) -> bool:
        """Whether all others have done what they owed."""
        with self.cell.database.read() as session:
            owing = set(session.exec(select(Host.name).join(OwedWork)).all())
        return owing <= self.cell.dead and not await self.cell.running()

    def expected(self, status: WorkflowExecutionStatus) -> list[World]:
        """The worlds that the operation may leave, by how it ended.

        An operation on a server that stays where it is cannot know what became of it when its host falls silent, or
        does not undo it: the row then follows the guest, so its success is right as well.
        """
        assert self.known is not None
        if self.operation.heals:
            return [self.known.success]
        if status is WorkflowExecutionStatus.COMPLETED:
            dead = any(strike.fault is Fault.DEAD for strike in self.case.strikes)
            return [self.known.success, *([not_started(self.known.success)] if dead else [])]
        if status is WorkflowExecutionStatus.CONTINUED_AS_NEW:
            return [self.known.origin, with_images_of(self.known.origin, self.known.success)]
        if self.operation.leaves_the_dead:  # its guest is off, which its row follows when the host is back
            former = [self.known.former, not_started(self.known.former), left_off(self.known.former)]
            return [*former, self.known.success]
        unknown = any(strike.fault in (Fault.DEAD, Fault.FAILS_LONG) for strike in self.case.strikes)
        if unknown and self.operation.on_server and not self.operation.makes_server:
            return [self.known.former, self.known.success, left_off(self.known.former)]
        return [self.known.former]

    def compare(self, world: World, status: WorkflowExecutionStatus, hidden: Sequence[str] = ()) -> list[str]:
        """How the world differs from the one that it must be; from the nearest, where there are two."""
        return min(
            (self.unlike(world, one, status, hidden) for one in self.expected(status)), key=lambda found: len(found)
        )

    def unlike(
        self, world: World, expected: World, status: WorkflowExecutionStatus, hidden: Sequence[str]
    ) -> list[str]:
        """How the world differs from another."""
        found = world.differences(expected.without(*hidden) if hidden else expected)
        if status is WorkflowExecutionStatus.CONTINUED_AS_NEW:
            return found + is_gone(world.server)
        assert self.known is not None
        if self.operation.makes_server and expected is self.known.former:
            return found + has_failed(world.server)
        return found + is_like(world.server, expected.server)

    async def read_history(self, run: WorkflowHandle[Any, Any]) -> None:
        """Its steps, and in short what happened."""
        struck = {one.activity for one in self.cell.book.struck()}
        seen: dict[str, int] = {}
        begun: dict[int, int] = {}
        lines: list[str] = []
        hosts = self.cell.host_ids()
        after = False
        async for event in run.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                name = scheduled.activity_type.name
                seen[name] = seen.get(name, 0) + 1
                step = Step(name, seen[name], scheduled.task_queue.name)
                self.result.steps.append(step)
                summary = event.user_metadata.summary.data.decode(errors="replace")
                if after:
                    self.result.aftermath.append(step)
                    if "undo" in summary:
                        self.result.undos.append(step)
                first = self.case.strikes[0] if self.case.strikes else None
                after = after or (first is not None and (name, seen[name]) == (first.activity, first.occurrence))
                begun[event.event_id] = len(lines)
                where = hosts.get(step.host_id or "", "control")
                mark = " ⚡" if name in struck else ""
                lines.append(f"{step.name} on {where}{mark}: ")
            elif (told := _told(event)) is not None:
                number, text = told
                if number in begun:
                    lines[begun[number]] += text
                else:
                    lines.append(text)
        self.result.history += lines


def has_orphaned_images(differences: list[str]) -> bool:
    """Whether all that is wrong are images in caches that have gone from the catalogue since: the audit's to remove."""
    return bool(differences) and all(ORPHANED_IMAGE.match(line) for line in differences)


def left_off(former: World) -> World:
    """The world before, but that the guest stays off, and the server in error: another may be running elsewhere.

    One that had no guest, as it was on the shelf, has none.
    """
    server = {**(former.server or {}), "vm_state": VmState.ERROR.value}
    if server.get("power_state") != PowerState.NOSTATE:
        server["power_state"] = PowerState.SHUTDOWN.value
    server.pop("fault", None)
    sections = {
        where: [line.replace('"power_state": "running"', '"power_state": "shutdown"') for line in lines]
        for where, lines in former.sections.items()
    }
    return World(sections, server)


def not_started(success: World) -> World:
    """The world of success, but that the host of the guest fell silent just when it was to start it."""
    server = {**(success.server or {}), "vm_state": VmState.STOPPED.value, "power_state": PowerState.SHUTDOWN.value}
    return World(success.sections, server)


def with_images_of(world: World, other: World) -> World:
    """A world with the images of another: one that a server's snapshot had made outlives the server."""
    images = {where: lines for where, lines in other.sections.items() if where in ("image", "image store")}
    return World({**world.sections, **images}, world.server)


def _told(event: Any) -> tuple[int, str] | None:
    """What an event says of the activity that was scheduled by another one, or (-1) of the run."""
    kind = event.WhichOneof("attributes").removesuffix("_event_attributes")
    body = getattr(event, f"{kind}_event_attributes")
    match kind:
        case "activity_task_started":
            return (body.scheduled_event_id, f"try {body.attempt}, ")
        case "activity_task_completed":
            return (body.scheduled_event_id, "done")
        case "activity_task_failed" | "activity_task_timed_out":
            cause = f", after: {body.failure.cause.message}" if body.failure.HasField("cause") else ""
            return (body.scheduled_event_id, f"failed: {body.failure.message}{cause}")
        case "activity_task_canceled":
            return (body.scheduled_event_id, "cancelled")
        case "activity_task_cancel_requested":
            return (body.scheduled_event_id, "asked to stop, ")
        case "workflow_execution_failed":
            return (-1, f"the operation failed: {body.failure.message}")
        case "workflow_execution_cancel_requested" | "workflow_execution_completed" | "workflow_execution_canceled":
            return (-1, kind.replace("_", " "))
        case "workflow_execution_continued_as_new" | "workflow_execution_terminated":
            return (-1, kind.replace("_", " "))
    return None


def _logs(directory: Path) -> dict[str, list[str]]:
    """The ends of what the workers said."""
    logs = sorted(directory.glob("*.log"))
    return {log.stem: log.read_text(errors="replace").splitlines()[-LOG_LINES:] for log in logs}
