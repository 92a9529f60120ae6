"""A real boot until its guest runs, against libvirt alone: define and start of the same XML over the same files."""

import asyncio
import statistics
import time
from pathlib import Path

import libvirt

from deploy.bench.cloud import cloud

IMAGE = Path(__file__).parents[2] / ".cache" / "demo.qcow2"
ROUNDS = 10
URI = "qemu:///system"


async def measure() -> dict[str, float]:
    """The medians, in milliseconds. Each round boots a server, then starts its domain once more by hand."""
    boots, bare = [], []
    async with cloud("libvirt", IMAGE) as here:
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            server_id = await here.boot()
            boots.append((time.perf_counter() - began) * 1000)
            bare.append(await asyncio.to_thread(define_and_start, server_id))
            await (await here.client.servers.delete(server_id)).result()
    boot, start = statistics.median(boots[1:]), statistics.median(bare[1:])  # the first one fetches the image
    more = statistics.median(one - other for one, other in zip(boots[1:], bare[1:], strict=True))
    return {
        "boot_ms": round(boot, 1),
        "bare_define_and_start_ms": round(start, 1),
        "more_ms": round(more, 1),
        "ratio": round(boot / start, 2),
    }


def define_and_start(server_id: str) -> float:
    """Milliseconds that libvirt takes for a domain of the XML that the server has."""
    connection = libvirt.open(URI)
    try:
        domain = connection.lookupByUUIDString(server_id)
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.destroy()
        domain.undefine()
        began = time.perf_counter()
        connection.defineXML(xml).create()
        return (time.perf_counter() - began) * 1000
    finally:
        connection.close()


def run() -> dict[str, float]:
    """Measure."""
    return asyncio.run(measure())
