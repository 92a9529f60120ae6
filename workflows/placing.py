"""An operation that builds its guest on one host of several: it goes from one that fails to the next.

`attempt` are the undos of what is bound to the present host, `whole` those of what stays when the host changes. From
`may_run` on the guest may be running: then the server is not built elsewhere before its host has confirmed that it is
gone. `runs_unseen`: a host that had it has not confirmed that.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.interfaces.scheduling import Allocation, Schedule
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.errors import BuildFailed, FilterReport, HostlerError, NoValidHost, OperationFailed, Preempted
from hostler.contract.guests import PortBinding
from hostler.contract.servers import Choice, Decision
from hostler.contract.states import PowerState
from workflows.block_devices import Keeper
from workflows.build import attempt_report, may_be_running, ways_out
from workflows.building import EXPLAIN, RESUME, SCHEDULE
from workflows.concurrency import to_the_end
from workflows.failures import Verdict, judge
from workflows.front_door import Request
from workflows.operation import Operation
from workflows.plugging import wait_vif_plugged
from workflows.source import go_off
from workflows.steps import Saga

KEEPERS_HOLD = "keepers-hold"
Built = TypeVar("Built")


class PlacedOperation(Operation[Request]):
    """What such operations share: the way from host to host."""

    def __init__(self, request: Request, planned: Sequence[str]) -> None:
        super().__init__(request, planned)
        self.ref = ServerRef(server_id=request.server_id, run_id=self.run_id)
        self.whole, self.attempt = Saga(), Saga()
        self.filters: list[FilterReport] = []
        self.considered = 0
        self.may_run = self.runs_unseen = False
        self.host: HostRef | None = None
        self.tried: list[str] = []
        self.alternates: list[str] = []

    @abstractmethod
    def wanted(self, alternates: list[str], tried: list[str], host: str | None = None) -> Schedule:
        """What the scheduler is asked for; `host` is an operator's decision, over the request's wish."""

    async def on_some_host(self, build: Callable[[HostRef], Awaitable[Built]]) -> tuple[HostRef, Built]:
        """Build on one host after the other, until it succeeds or there is none left to try."""
        while True:
            self.state.attempt, self.state.host = len(self.attempts) + 1, None
            host = await self.schedule()
            self.arrive()
            try:
                return host, await build(host)
            except (FailureError, HostlerError) as failure:
                await self.leave(host, judge(failure, host=host.name))

    async def let_run(self, ports: Sequence[PortBinding], host: HostRef, *, stays_off: bool = False) -> PowerState:
        """What was spawned runs once its ports are there; one that `stays_off` goes off instead. Its power then."""
        if stays_off:
            return await go_off(self, self.call.server_id, host)
        await wait_vif_plugged(self, ports, host)
        self.may_run = True
        return await self.step(RESUME, self.ref, on=host)

    async def schedule(self) -> HostRef:
        """Take the next host: where an operator sends it, an alternate, else the best that a new search finds."""

        def ask(decision: Decision | None = None) -> Schedule:
            if decision is not None:  # whoever decides to search again may have repaired what had failed
                self.alternates, self.tried = [], []
            if self.destination is not None:
                return self.wanted([], [], self.destination.id)
            return self.wanted(self.alternates, self.tried)

        undo = Allocation(server_id=self.call.server_id)
        placement = await self.step(SCHEDULE, ask(), saga=self.attempt, undo=undo, again=ask)
        self.host, self.alternates, self.state.host = placement.host, placement.alternates, placement.host.name
        return placement.host

    def choices(self, verdict: Verdict, on: HostRef | None) -> Sequence[Choice]:
        if isinstance(on, Keeper) and workflow.patched(KEEPERS_HOLD):
            return super().choices(verdict, on)
        attempts_left = self.state.attempt < self.limits.max_attempts
        return ways_out(verdict, on, self.host, may_run=self.may_run, attempts_left=attempts_left)

    async def leave(self, host: HostRef, verdict: Verdict) -> None:
        """Clean up behind a failed attempt; returns when another host may be tried."""
        self.attempts.append(attempt_report(self.state, host, verdict))
        self.tried.append(host.id)
        gone = await to_the_end(self.undo_attempt())
        self.host = None
        if not verdict.reschedule and not self.moving:
            raise verdict.error
        if not gone:
            raise self.uncertain(host)
        self.may_run = False
        if self.state.attempt >= self.limits.max_attempts and not self.moving:
            story = await self.step(EXPLAIN, self.wanted([], self.tried))
            self.considered, self.filters = story.considered, story.filters
            raise BuildFailed(f"the build failed on all {len(self.attempts)} hosts that were tried")

    async def undo_attempt(self) -> bool:
        """Undo what is on the present host; False when the guest may run on there."""
        gone = await self.unwind(self.attempt) or not self.may_run
        self.runs_unseen |= not gone
        return gone

    async def undo_all(self, error: HostlerError) -> bool:
        """Undo it, the error told; False when a guest may run on unseen, and the server must be in error."""
        await self.undo_attempt()
        await self.unwind(self.whole)
        self.tell_all(error)
        return not self.runs_unseen or isinstance(error, Preempted)

    def uncertain(self, host: HostRef) -> HostlerError:
        """The one failure after which no other host is tried."""
        return may_be_running(host)

    def tell_all(self, error: HostlerError) -> None:
        """Let the error say what each host said, and each filter."""
        if isinstance(error, NoValidHost):
            self.considered, self.filters = error.detail.hosts_considered or 0, error.detail.filters
        if not isinstance(error, Preempted):
            error.detail.attempts = self.attempts
            error.detail.hosts_considered, error.detail.filters = self.considered, self.filters


def not_built_twice(host: HostRef, remedy: str) -> OperationFailed:
    """That failure, of a server that was there before."""
    return OperationFailed(may_be_running(host).detail.message, remedy=remedy)
