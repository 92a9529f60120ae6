"""Clouds for the tests of workflows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

import workers.control
import workers.host
from tests.cloud import Cloud, run_cloud

StartCloud = Callable[..., Awaitable[Cloud]]


@pytest.fixture
async def start_cloud(
    temporal_server: str,
    namespace: str,
    tmp_path: Path,
    tables: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[StartCloud]:
    """Starts a cloud of the test's own, with `run_cloud`'s options."""
    # A step that hangs on purpose shall not hold up the end of its test.
    monkeypatch.setattr(workers.host, "DRAIN", timedelta(seconds=0.2))
    monkeypatch.setattr(workers.control, "DRAIN", timedelta(seconds=2))
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> Cloud:
            cloud = run_cloud(temporal_server, namespace, tmp_path, tables, disk, **options)  # type: ignore[arg-type]  # passed on as they come
            return await stack.enter_async_context(cloud)

        yield start


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """A cloud with two hosts, sim-1 before sim-2."""
    return await start_cloud()
