"""Passes connections on: from the address at which the hosts look for Temporal to the one where it is.

Temporal's development server works on a loopback address only: its parts call each other at 127.0.0.1, wherever they
listen.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

CHUNK = 1 << 16


@contextlib.asynccontextmanager
async def relay(listen: tuple[str, int], to: tuple[str, int]) -> AsyncIterator[None]:
    """Pass on, both ways, whatever comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*to)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, *listen)
    try:
        yield
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
