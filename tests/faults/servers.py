"""Temporal development servers for the cases, one after the other.

A development server keeps all that it ever had in memory, and goes through it: after some hundred clouds it needs a
core for itself, and the cases run into their limits. So each serves a number of cases only.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from tests.conftest import free_port, run_temporal
from workers.temporal_server import DYNAMIC_CONFIG

FLAGS = [word for key, value in DYNAMIC_CONFIG.items() for word in ("--dynamic-config-value", f"{key}={value}")]
CASES = 60


@dataclass
class _Server:
    address: str
    life: ExitStack
    served: int = 0
    using: int = 0


@dataclass
class TemporalServers:
    """Hands out the server of the hour; a former one ends with the last case that uses it."""

    cases: int = CASES
    _servers: list[_Server] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[str]:
        """The address of a server, for one case."""
        server = await asyncio.to_thread(self._take)
        try:
            yield server.address
        finally:
            await asyncio.to_thread(self._give_back, server)

    def close(self) -> None:
        """End all."""
        while self._servers:
            self._servers.pop().life.close()

    def _take(self) -> _Server:
        with self._lock:
            if not self._servers or self._servers[-1].served >= self.cases:
                life = ExitStack()
                self._servers.append(_Server(life.enter_context(run_temporal(free_port(), *FLAGS)), life))
            server = self._servers[-1]
            server.served += 1
            server.using += 1
            return server

    def _give_back(self, server: _Server) -> None:
        with self._lock:
            server.using -= 1
            if server.using == 0 and server.served >= self.cases:
                self._servers.remove(server)
                server.life.close()


@contextmanager
def temporal_servers() -> Iterator[TemporalServers]:
    """Servers that are ended with the block."""
    servers = TemporalServers()
    try:
        yield servers
    finally:
        servers.close()
