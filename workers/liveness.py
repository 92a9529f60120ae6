"""Which hosts are up: Temporal's own knowledge of their workers, refreshed in the background.

Workers send Temporal a heartbeat each; one listing shows them all. Servers that cannot list workers are asked for the
pollers of each host's queue instead. docs/decisions/host-liveness.md says why, and what it costs.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from temporalio.api.enums.v1 import TaskQueueType, WorkerStatus
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, ListWorkersRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from hostler.contract.names import HOST_QUEUE_PREFIX, host_queue

log = logging.getLogger(__name__)

MISSES = 3
"""A worker is down after this many intervals without a heartbeat."""
LONG_POLL = timedelta(seconds=70)
"""How rarely an idle worker polls: what is known from pollers is that much older."""
PAGE = 1000
CONCURRENT_CALLS = 32
FEW = 5  # so many changes are logged one by one
CALL_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True)
class Beat:
    """A sign of life of a host's worker. `sent` is in seconds since the epoch, by the sender's clock."""

    worker: str
    host: str
    sent: float
    running: bool = True


@dataclass
class _Heard:
    beat: Beat
    at: float


class Roll:
    """Decides from the beats seen so far which hosts are up. Times are in seconds.

    The clocks of hosts are not trusted: what counts is when a new beat was first seen here. Only for the first one of
    a worker, its age is taken from its own time.
    """

    def __init__(self, interval: float, limit: float) -> None:
        self._interval = interval
        self._limit = limit
        self._heard: dict[str, _Heard] = {}
        self._called = 0.0

    def call(self, beats: Iterable[Beat], now: float, wall: float) -> frozenset[str]:
        """Take in what Temporal knows at `now` (monotonic; `wall` is the time of day) and say which hosts are up."""
        if now - self._called > 2 * self._interval:
            self._excuse(now)
        self._called = now
        listed = {beat.worker: beat for beat in beats}
        self._forget({worker for worker in self._heard if worker not in listed}, now)
        for worker, beat in listed.items():
            known = self._heard.get(worker)
            if known is None:
                self._heard[worker] = _Heard(beat, now - max(0.0, wall - beat.sent))
            elif beat != known.beat:
                self._heard[worker] = _Heard(beat, now)
        return frozenset(heard.beat.host for heard in self._heard.values() if self._up(heard, now))

    def _up(self, heard: _Heard, now: float) -> bool:
        return heard.beat.running and now - heard.at < self._limit

    def _excuse(self, now: float) -> None:
        # While nobody could look, nobody could be seen: an outage of Temporal says nothing about the hosts.
        for heard in self._heard.values():
            if self._up(heard, self._called):
                heard.at = now

    def _forget(self, missing: set[str], now: float) -> None:
        # A worker that shuts down in order leaves the list at once. When most leave it together, it is rather that
        # a Temporal server was restarted and has forgotten them: then they have until the limit to be heard again.
        up = {worker for worker, heard in self._heard.items() if self._up(heard, now)}
        restarted = len(up & missing) > len(up) / 2
        for worker in missing:
            if worker not in up or not restarted:
                del self._heard[worker]


class Liveness:
    """Knows which hosts are up, as of the last refresh; `alive` may be called from any thread.

    `interval` is how often workers send heartbeats, and how often this looks. `known_hosts` gives the UUIDs to ask
    for (on a thread, so it may block) where the server cannot list its workers. While Temporal does not answer, the
    last knowledge stands.
    """

    def __init__(self, client: Client, interval: timedelta, known_hosts: Callable[[], Iterable[str]] = tuple) -> None:
        self._client = client
        self._interval = interval
        self._known_hosts = known_hosts
        self._roll = Roll(interval.total_seconds(), (MISSES * interval).total_seconds())
        self._lists_workers = True
        self._alive: frozenset[str] = frozenset()
        self._answers = True
        self._task: asyncio.Task[None] | None = None

    def alive(self) -> frozenset[str]:
        """The UUIDs of the hosts that are up."""
        return self._alive

    async def refresh(self) -> None:
        """Ask Temporal now."""
        try:
            beats = await self._beats()
        except RPCError as error:
            if self._answers:
                log.warning("Temporal does not say which hosts are up, so the last answer stands: %s", error)
            self._answers = False
            return
        self._answers = True
        alive = self._roll.call(beats, time.monotonic(), time.time())
        _tell("up", alive - self._alive)
        _tell("down", self._alive - alive)
        self._alive = alive

    async def __aenter__(self) -> Self:
        await self.refresh()
        self._task = asyncio.create_task(self._keep_refreshing(), name="liveness")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.refresh()
            except Exception:
                log.exception("the hosts' state could not be refreshed")  # known_hosts may fail; the task must not end

    async def _beats(self) -> list[Beat]:
        if self._lists_workers:
            try:
                return await self._list_workers()
            except RPCError as error:
                if error.status is not RPCStatusCode.UNIMPLEMENTED:
                    raise
            log.warning("this Temporal server cannot list workers: a dead host shows only after %s", LONG_POLL)
            self._lists_workers = False
            limit = MISSES * self._interval + LONG_POLL
            self._roll = Roll(self._interval.total_seconds(), limit.total_seconds())
        return await self._describe_queues(await asyncio.to_thread(lambda: list(self._known_hosts())))

    async def _list_workers(self) -> list[Beat]:
        beats: list[Beat] = []
        token = b""
        while True:
            answer = await self._client.workflow_service.list_workers(
                ListWorkersRequest(namespace=self._client.namespace, page_size=PAGE, next_page_token=token),
                timeout=CALL_TIMEOUT,
            )
            if answer.workers and not answer.workers_info:
                # Announced in Temporal's API: later servers will no longer say here when a worker was last heard.
                raise RPCError("the heartbeats are not in the list", RPCStatusCode.UNIMPLEMENTED, b"")
            for info in answer.workers_info:
                beat = info.worker_heartbeat
                if beat.task_queue.startswith(HOST_QUEUE_PREFIX):
                    host = beat.task_queue.removeprefix(HOST_QUEUE_PREFIX)
                    running = beat.status == WorkerStatus.WORKER_STATUS_RUNNING
                    sent = beat.heartbeat_time.ToMicroseconds() / 1e6
                    beats.append(Beat(beat.worker_instance_key, host, sent, running))
            token = answer.next_page_token
            if not token:
                return beats

    async def _describe_queues(self, hosts: list[str]) -> list[Beat]:
        slots = asyncio.Semaphore(CONCURRENT_CALLS)

        async def describe(host: str) -> list[Beat]:
            async with slots:
                answer = await self._client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=self._client.namespace,
                        task_queue=TaskQueue(name=host_queue(host)),
                        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                    ),
                    timeout=CALL_TIMEOUT,
                )
            return [
                Beat(f"{host} {poller.identity}", host, poller.last_access_time.ToMicroseconds() / 1e6)
                for poller in answer.pollers
            ]

        return [beat for beats in await asyncio.gather(*map(describe, hosts)) for beat in beats]


def _tell(state: str, hosts: frozenset[str]) -> None:
    if len(hosts) > FEW:
        log.info("%d hosts are %s", len(hosts), state)
        return
    for host in sorted(hosts):
        log.info("host is %s", state, extra={"host": host})
