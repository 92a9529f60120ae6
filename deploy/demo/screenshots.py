#!/usr/bin/env python3
"""Takes the pictures of the documentation again: Temporal's web UI, with a boot on its second attempt in progress.

The cloud is simulated; the UI is the real one, in a headless Chromium.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from deploy.demo.browser import Browser, find
from deploy.demo.cloud import IMAGE, ROOT, Cloud, Failed
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError

PICTURES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1500, 1500
HOSTS, REFUSING = 4, "compute-2"
SETTINGS = f"""
[scheduler]
spread = 1

[host.simulated]
name_prefix = "compute-"
latency = {{ spawn = "PT15S", fetch = "PT1S", bind = "PT0.2S", resume = "PT0.3S" }}

[[host.simulated.faults]]
host = "{REFUSING}"
call = "spawn"
kind = "reschedule"
message = "cannot allocate memory: QEMU does not start"
times = 1
"""
COLUMNS = (
    *("Status", "Type", "HostlerServerName", "HostlerStep", "HostlerHost", "HostlerAttempt"),
    *("HostlerProject", "Start", "End", "Workflow ID"),
)
COLUMNS_KEY = "namespace-workflow-table-columns"
"""Where the UI remembers, in the browser, which columns to show."""


async def main(program: str) -> None:
    """Take them."""
    with tempfile.TemporaryDirectory(prefix="hostler-pictures-") as directory:
        cloud = Cloud(Path(directory) / "cloud")
        try:
            await cloud.start(SETTINGS, "--no-libvirt", "--simulated", str(HOSTS), hosts=HOSTS)
            async with await Client.connect(cloud.settings) as client:
                boot = await act(client)
                await asyncio.to_thread(take, program, cloud, boot)
        finally:
            await cloud.stop()
            shutil.rmtree(cloud.directory, ignore_errors=True)


async def act(client: Client) -> Operation:
    """Let some things happen; returns a boot that is in the middle of its second attempt."""
    await client.flavors.create("small", vcpus=1, ram_mib=2048)
    await client.flavors.create("huge", vcpus=16, ram_mib=128 * 1024)
    await client.networks.create("lan", cidr="10.20.0.0/24")
    await client.images.create("demo", IMAGE)

    async def boot(name: str, *, flavor: str = "small", host: str | None = None) -> Operation:
        return await client.servers.boot(name, flavor=flavor, image="demo", networks=["lan"], host=host)

    others = [f"compute-{number}" for number in range(1, HOSTS + 1) if f"compute-{number}" != REFUSING]
    first = [await boot(f"db-{number}", host=host) for number, host in enumerate(others, 1)]
    first.append(await boot("batch-1", host=others[0]))
    await boot("analytics", flavor="huge")
    for operation in first:
        await operation.result()
    await (await client.servers.stop("db-1")).result()
    await (await client.servers.delete("batch-1")).result()
    moving = await boot("web-1")  # the host that has no server yet has the most memory: the one that refuses
    async for progress in moving.follow():
        if progress.attempt == 2 and any(step.name == "spawn" and step.attempt == 2 for step in progress.steps):
            return moving
    raise Failed("the boot ended before its second attempt")


def take(program: str, cloud: Cloud, boot: Operation) -> None:
    """Take the pictures, one after the other."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    temporal = cloud.settings.temporal
    listing = f"{temporal.ui_url}/namespaces/{temporal.namespace}/workflows"
    run = cloud.link(boot.server_id, boot.run_id).removesuffix("/timeline")
    with Browser(program, WIDTH, HEIGHT) as browser:
        browser.open(listing, "Workflow ID")
        columns = json.dumps({temporal.namespace: [{"label": label} for label in COLUMNS]})
        browser.evaluate(f"localStorage.setItem({json.dumps(COLUMNS_KEY)}, {json.dumps(columns)})")
        browser.open(f"{run}/user-metadata", "Current Details")
        browser.picture(PICTURES / "details.png", width=WIDTH, height=HEIGHT)
        browser.open(f"{run}/timeline", "claim_resources")
        browser.picture(PICTURES / "timeline.png", width=WIDTH, height=HEIGHT)
        browser.open(listing, "web-1")
        browser.picture(PICTURES / "workflows.png", width=WIDTH, height=HEIGHT)


def entry() -> None:
    """The command."""
    program = find()
    if program is None:
        sys.exit("the pictures are taken with Chromium, which is not installed: apt-get install chromium")
    try:
        asyncio.run(main(program))
    except (Failed, HostlerError) as error:
        sys.exit(f"no pictures: {error}")


if __name__ == "__main__":
    entry()
