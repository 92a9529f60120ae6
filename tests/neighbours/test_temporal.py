"""Temporal is killed in the middle of operations: they end as asked once it is back."""
import asyncio
from pathlib import Path
from tests.processes.cloud import process_cloud
async def test_it(tmp_path: Path) -> None:
    async with process_cloud(tmp_path) as cloud:
        before = await cloud.settled()
        server = await cloud.booted()
        cloud.temporal.restart()
        await cloud.deleted(server.id)
        assert (await cloud.settled()) == before
