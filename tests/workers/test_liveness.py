"""A host is up as long as Temporal hears its worker; trouble between us and Temporal is not held against it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.workflowservice.v1 import ListWorkersResponse
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from hostler.contract.names import host_queue
from workers.liveness import Beat, Liveness, Roll

INTERVAL = timedelta(seconds=1)


class TestRoll:
    """The decision, with made-up clocks: an interval of 5 seconds, down after 15."""

    def roll(self) -> Roll:
        return Roll(5, 15)

    def calls(self, roll: Roll, *seen: tuple[float, Iterable[Beat]], skew: float = 0) -> list[set[str]]:
        return [set(roll.call(beats, now, now + 1_000_000 + skew)) for now, beats in seen]

    def beat(self, host: str, at: float, worker: str = "", running: bool = True, skew: float = 0) -> Beat:
        return Beat(worker or f"worker of {host}", host, at + 1_000_000 + skew, running)

    def test_a_host_is_down_when_three_heartbeats_are_missing(self) -> None:
        last = [self.beat("a", 99)]
        assert self.calls(self.roll(), *((now, last) for now in (100, 105, 110, 115))) == [{"a"}, {"a"}, {"a"}, set()]

    def test_every_new_heartbeat_counts_from_when_it_is_seen(self) -> None:
        roll = self.roll()
        for now in range(100, 200, 5):
            assert roll.call([self.beat("a", now - 4)], now, now + 1_000_000) == {"a"}

    def test_what_was_dead_long_ago_is_down_at_first_sight(self) -> None:
        assert self.calls(self.roll(), (100, [self.beat("a", 50)])) == [set()]

    @pytest.mark.parametrize("skew", [-3600, 3600])
    def test_a_wrong_clock_does_not_matter_once_a_second_heartbeat_came(self, skew: float) -> None:
        alive = self.calls(
            self.roll(),
            (100, [self.beat("a", 99, skew=skew)]),
            (105, [self.beat("a", 104, skew=skew)]),
            *((now, [self.beat("a", 104, skew=skew)]) for now in (110, 115, 120)),
        )
        assert alive[1:] == [{"a"}, {"a"}, {"a"}, set()]

    def test_a_worker_that_shuts_down_takes_its_host_down_at_once(self) -> None:
        roll = self.roll()
        others = [self.beat("b", 99), self.beat("c", 99)]
        assert self.calls(roll, (100, [self.beat("a", 99), *others]), (101, others)) == [
            {"a", "b", "c"},
            {"b", "c"},
        ]
        assert self.calls(roll, (102, [self.beat("b", 99, running=False), others[1]])) == [{"c"}]

    def test_a_restarted_worker_takes_over_from_the_one_before(self) -> None:
        roll = self.roll()
        old, new = self.beat("a", 99, "old"), self.beat("a", 112, "new")
        assert self.calls(roll, (100, [old]), (113, [old, new]), (118, [old, new])) == [{"a"}] * 3

    def test_a_restarted_temporal_has_forgotten_everybody_and_nobody_goes_down(self) -> None:
        hosts = [self.beat(host, 99) for host in "abc"]
        again = [self.beat("a", 108)]
        alive = self.calls(self.roll(), (100, hosts), (105, []), (109, again), (113, again), (120, again))
        assert alive == [{"a", "b", "c"}] * 4 + [{"a"}]

    def test_an_outage_of_temporal_is_not_held_against_the_hosts(self) -> None:
        hosts = [self.beat(host, 99) for host in "ab"]
        again = [self.beat("a", 703), hosts[1]]
        alive = self.calls(self.roll(), (100, hosts), (700, hosts), (705, again), (710, again), (715, again))
        assert alive == [{"a", "b"}] * 4 + [{"a"}], "they have three intervals more to be heard again"

    def test_a_host_that_was_down_before_the_outage_stays_down(self) -> None:
        dead = [self.beat("a", 50)]
        assert self.calls(self.roll(), (100, dead), (700, dead)) == [set(), set()]


@pytest.fixture(scope="module")
def beating() -> Runtime:
    return Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=INTERVAL)


@pytest.fixture
async def client(temporal_server: str, namespace: str, beating: Runtime) -> Client:
    return await Client.connect(temporal_server, namespace=namespace, runtime=beating)


@activity.defn
async def nothing() -> None:
    """What the workers of these tests serve."""


async def becomes(liveness: Liveness, hosts: set[str], within: float = 10) -> None:
    """Wait until exactly these hosts are up."""
    async with asyncio.timeout(within):
        while liveness.alive() != hosts:  # noqa: ASYNC110 - there is nothing else to wait for
            await asyncio.sleep(0.05)


@asynccontextmanager
async def host_worker(client: Client, host: str) -> AsyncIterator[None]:
    async with Worker(client, task_queue=host_queue(host), activities=[nothing]):
        yield


@contextmanager
def host_process(client: Client, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """A host worker that can be killed without taking its leave."""
    process = subprocess.Popen(
        [sys.executable, __file__, client.service_client.config.target_host, client.namespace, host]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_host_is_up_while_its_worker_runs(client: Client) -> None:
    stays, leaves = str(uuid4()), str(uuid4())
    async with Liveness(client, INTERVAL) as liveness, host_worker(client, stays):
        async with host_worker(client, leaves):
            await becomes(liveness, {stays, leaves})
        await becomes(liveness, {stays})
        async with Worker(client, task_queue="somebody-else's", activities=[nothing]):
            await asyncio.sleep(2 * INTERVAL.total_seconds())
            assert liveness.alive() == {stays}


async def test_a_killed_host_is_noticed_after_three_intervals(client: Client) -> None:
    host = str(uuid4())
    async with Liveness(client, INTERVAL) as liveness:
        with host_process(client, host) as process:
            await becomes(liveness, {host})
            process.kill()
            killed = asyncio.get_running_loop().time()
            await becomes(liveness, set())
            assert 2 < asyncio.get_running_loop().time() - killed < 6


async def test_listings_of_many_pages_are_read_to_the_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.liveness.PAGE", 1)
    hosts = {str(uuid4()) for _ in range(3)}
    first, second, third = hosts
    async with (
        Liveness(client, INTERVAL) as liveness,
        host_worker(client, first),
        host_worker(client, second),
        host_worker(client, third),
    ):
        await becomes(liveness, hosts)


async def test_while_temporal_does_not_answer_the_last_knowledge_stands(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = str(uuid4())
    async with host_worker(client, host), Liveness(client, INTERVAL) as liveness:
        await becomes(liveness, {host})

        async def refuse(*_: object, **__: object) -> ListWorkersResponse:
            raise RPCError("nobody there", RPCStatusCode.UNAVAILABLE, b"")

        monkeypatch.setattr(client.workflow_service, "list_workers", refuse)
        for _ in range(3):
            await liveness.refresh()
        assert liveness.alive() == {host}
        assert caplog.text.count("the last answer stands") == 1


async def test_a_server_that_cannot_list_workers_is_asked_for_the_pollers_of_known_hosts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object, **__: object) -> ListWorkersResponse:
        raise RPCError("unknown method", RPCStatusCode.UNIMPLEMENTED, b"")

    monkeypatch.setattr(client.workflow_service, "list_workers", unknown)
    up, down = str(uuid4()), str(uuid4())
    async with host_worker(client, up), Liveness(client, INTERVAL, lambda: [up, down]) as liveness:
        await becomes(liveness, {up})


async def test_a_list_without_heartbeats_is_no_list(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client.workflow_service.list_workers

    async def shortened(*args: object, **kwargs: object) -> ListWorkersResponse:
        answer = await whole(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they come
        answer.ClearField("workers_info")
        return answer

    host = str(uuid4())
    async with host_worker(client, host), Liveness(client, INTERVAL, lambda: [host]) as liveness:
        monkeypatch.setattr(client.workflow_service, "list_workers", shortened)
        await becomes(liveness, {host})


async def _serve(address: str, namespace: str, host: str) -> None:
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=INTERVAL)
    client = await Client.connect(address, namespace=namespace, runtime=runtime)
    async with host_worker(client, host):
        await asyncio.Event().wait()


if __name__ == "__main__":  # what host_process runs
    asyncio.run(_serve(*sys.argv[1:4]))
