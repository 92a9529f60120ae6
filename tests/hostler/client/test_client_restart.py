"""Waiting and following across a restart of Temporal."""

import asyncio
from datetime import timedelta
from pathlib import Path

from hostler import Client, Progress
from tests.conftest import free_port, make_namespace, run_temporal
from tests.hostler.peers import cloud


async def test_result_and_follow_outlive_temporal(tmp_path: Path) -> None:
    port, database = free_port(), ("--db-filename", str(tmp_path / "temporal.db"))
    seen: list[Progress] = []

    async def follow() -> None:
        seen.extend([progress async for progress in operation.follow()])

    server = run_temporal(port, *database)
    address = await asyncio.to_thread(server.__enter__)
    try:
        namespace = await make_namespace(address)
        client = await Client.connect(address=address, namespace=namespace)
        async with cloud(address, namespace):
            operation = await client.servers.boot("web", flavor="flaky", image="demo")
            waiting = asyncio.gather(operation.result(timedelta(seconds=90)), follow())
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.__exit__, None, None, None)
            await asyncio.sleep(12)  # longer than Temporal's client tries by itself
            server = run_temporal(port, *database)
            await asyncio.to_thread(server.__enter__)
            await waiting
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
    assert (await asyncio.shield(waiting))[0].status == "ACTIVE"
    assert seen[-1].done
