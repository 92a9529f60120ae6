"""What a drain and the failure of a host share: all of a host's servers, some at a time, each by operations of its own.

An operation is a child workflow under the server's ID, as if somebody had asked for it: the ID is the lock. A server
that is busy is asked again for a while. Cancelling the work cancels the operations under way, and each is undone.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.host_work import HostServers, HostWork, Move, NextMove
from hostler.contract.errors import Cancelled, HostlerError, InvalidState, ServerBusy
from hostler.contract.host_work import MoveState, ServerMove
from hostler.contract.servers import OnFailure, OperationName
from workflows.asking import operate
from workflows.concurrency import together
from workflows.host_course import Course, in_full, unseen
from workflows.host_door import HostDoor
from workflows.steps import CONTROL_RETRY, QUICK_STEP

LONGEST_PAUSE = timedelta(seconds=30)
MOST_OPERATIONS = 4
"""A server that is still there after so many will not leave."""


class ServersOfHost(HostDoor):
    """The base of both workflows."""

    evacuation = False
    on_failure: OnFailure | None = None

    def __init__(self, host_id: str, request_id: str, title: str) -> None:
        super().__init__(host_id, request_id, title)
        self.patience = timedelta(0)
        self.skip = True

    async def servers(self, *, by_policy: bool = False) -> list[ServerMove]:
        """Those that are there, and are not known yet."""
        found = await workflow.execute_activity_method(
            HostWork.servers_of_host,
            HostServers(host_id=self.state.host_id, evacuation=self.evacuation, by_policy=by_policy),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_RETRY,
        )
        known = {server.server_id for server in self.state.servers}
        return [server for server in found if server.server_id not in known]

    async def each(self, servers: Iterable[ServerMove], parallel: int) -> None:
        """Move them, in this order, so many at a time."""
        queue = deque(servers)
        self.state.servers += queue
        self.tell()

        async def worker() -> None:
            while queue and not self.state.stopped:
                await self._move(queue.popleft())

        await together(*(worker() for _ in range(min(parallel, len(queue)))))

    async def _move(self, server: ServerMove) -> None:
        course = Course(server, began=workflow.now())
        while server.state in (MoveState.PENDING, MoveState.MOVING):
            if workflow.cancellation_reason() is not None and not course.goes_on:
                raise asyncio.CancelledError
            try:
                move = await self._look(course)
            except (ActivityError, asyncio.CancelledError) as failure:
                move = unseen(course, failure)
            if move.halt:
                return self._halt(server, move.halt)
            if move.done:
                server.state, server.to, server.reason = MoveState.MOVED, move.to, ""
            elif move.reason and not move.busy:
                self._cannot(server, move.reason, MoveState.SKIPPED)
            elif move.busy or not await self._perform(course, move.operation):
                server.reason = move.reason or server.reason
                await self._wait(course)
            self.tell()

    async def _look(self, course: Course) -> Move:
        move = await workflow.execute_activity_method(
            HostWork.next_move,
            NextMove(
                host_id=self.state.host_id,
                server_id=course.server.server_id,
                evacuation=self.evacuation,
                migrated=course.migrated,
            ),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_RETRY,
            summary=course.server.name,
        )
        if move.volumes is not None:
            self.state.volumes = move.volumes
        return move

    async def _perform(self, course: Course, operation: OperationName | None) -> bool:
        """Have the operation done; False if the server is to be asked again later."""
        assert operation is not None
        server, again = course.server, course.last is operation
        if len(course.done) >= MOST_OPERATIONS:
            self._cannot(server, f"it is still there after {len(course.done)} operations", MoveState.FAILED)
            return True
        server.state, server.operation, server.reason = MoveState.MOVING, operation, ""
        self.tell()
        try:
            await operate(operation, server, self.title, self.on_failure)
        except ServerBusy as error:
            server.reason = str(error)
            return False
        except asyncio.CancelledError:  # before the operation had begun
            if not course.goes_on:
                raise
            return False
        except HostlerError as error:
            if isinstance(error, Cancelled) and course.goes_on:
                return True
            # Its state may have changed between the look and the operation; twice it has not.
            if isinstance(error, InvalidState) and not again:
                course.done.append(operation)
                server.reason = str(error)
                return False
            self._cannot(server, in_full(error), MoveState.FAILED)
        else:
            course.done.append(operation)
            course.migrated = course.migrated or operation is OperationName.MIGRATE
        return True

    async def _wait(self, course: Course) -> None:
        course.server.reason = course.server.reason or "another operation has it"
        if workflow.now() - course.began >= self.patience:
            return self._cannot(course.server, f"busy for too long: {course.server.reason}", MoveState.SKIPPED)
        self.tell()
        try:
            await workflow.sleep(course.pause, summary=f"{course.server.name} is busy")
        except asyncio.CancelledError:
            if not course.goes_on:
                raise
        course.pause = min(2 * course.pause, LONGEST_PAUSE)

    def _cannot(self, server: ServerMove, reason: str, state: MoveState) -> None:
        server.state, server.reason = state if self.skip else MoveState.FAILED, reason
        if not self.skip and workflow.cancellation_reason() is None:
            self.stop(f"server {server.name} cannot be moved: {reason}")

    def _halt(self, server: ServerMove, why: str) -> None:
        server.state = MoveState.PENDING
        self.stop(why)
