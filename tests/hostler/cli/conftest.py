"""A cloud of test peers, and `hostler` to use it with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hostler.cli.app import app
from tests.hostler.peers import Catalogue, cloud

Hostler = Callable[..., Awaitable[Result]]


@pytest.fixture
async def catalogue(temporal_server: str, namespace: str) -> AsyncIterator[Catalogue]:
    """A cloud whose workers run."""
    async with cloud(temporal_server, namespace) as catalogue:
        yield catalogue


@pytest.fixture
def hostler(temporal_server: str, namespace: str, tmp_path: Path) -> Hostler:
    """Runs `hostler` with the words given, against the test's namespace, with the keys of the test's cloud."""
    environment = {
        "HOSTLER_TEMPORAL__ADDRESS": temporal_server,
        "HOSTLER_TEMPORAL__NAMESPACE": namespace,
        "HOSTLER_STATE_DIR": str(tmp_path),
    }

    async def run(*words: str) -> Result:
        # In a thread: the cloud's workers live in this one's event loop.
        return await asyncio.to_thread(CliRunner(env=environment).invoke, app, words)

    return run
