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
from deploy.environment import forget_other_clouds
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError

PICTURES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1500, 1500
LIST_HEIGHT, TIMELINE_HEIGHT, DETAILS_HEIGHT, MENU = 760, 740, 1180, 256
LOOKS = 4
HOSTS, REFUSING = 4, "compute-2"
SETTINGS = f"""
[scheduler]
spread = 1

[host.simulated]
name_prefix = "compute-"
latency = {{ spawn = "PT12S", fetch = "PT1S", bind = "PT0.2S", resume = "PT0.3S" }}

[[host.simulated.faults]]
host = "{REFUSING}"
call = "spawn"
kind = "reschedule"
message = "cannot allocate memory: QEMU does not start"
times = 1
"""
COLUMNS = (
    *("Status", "Type", "HostlerServerName", "HostlerStep", "HostlerHost", "HostlerAttempt"),
    *("Start", "End", "Workflow ID"),
)
COLUMNS_KEY = "namespace-workflow-table-columns"
"""Where the UI remembers, in the browser, which columns to show."""


TOP_OF_TIMELINE = (
    "[...document.querySelectorAll('h2')].find(e => e.innerText == 'Timeline').getBoundingClientRect().top"
)


async def main(program: str) -> None:
    """Take them."""
    with tempfile.TemporaryDirectory(prefix="hostler-pictures-") as directory:
        cloud = Cloud(Path(directory) / "cloud")
        try:
            await cloud.start(SETTINGS, "--no-libvirt", "--simulated", str(HOSTS), hosts=HOSTS)
            with Browser(program, WIDTH, HEIGHT) as browser:
                async with await Client.connect(cloud.settings) as client:
                    await asyncio.to_thread(prepare, browser, cloud)
                    boot = await act(client)
                    await asyncio.to_thread(take, browser, cloud, boot)
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
        second = [step for step in progress.steps if step.attempt == 2 and step.started_at]
        if [step.name for step in second if step.finished_at is None] == ["spawn"]:
            return moving
    raise Failed("the boot ended before its second attempt")


def prepare(browser: Browser, cloud: Cloud) -> None:
    """Have the UI show the columns that say something of servers."""
    browser.open(listing(cloud), "Workflow ID")
    columns = json.dumps({cloud.settings.temporal.namespace: [{"label": label} for label in COLUMNS]})
    browser.evaluate(f"localStorage.setItem({json.dumps(COLUMNS_KEY)}, {json.dumps(columns)})")


def take(browser: Browser, cloud: Cloud, boot: Operation) -> None:
    """Take the pictures, one after the other."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    run = cloud.link(boot.server_id, boot.run_id)
    for _ in range(LOOKS):  # Temporal's index is a little behind
        browser.open(listing(cloud), "web-1")
        if "spawn" in browser.text():
            break
    browser.picture(PICTURES / "workflows.png", width=WIDTH, height=LIST_HEIGHT)
    browser.open(run, "claim_resources")
    top = browser.evaluate(TOP_OF_TIMELINE)
    browser.picture(PICTURES / "timeline.png", top=top - 20, left=MENU, width=WIDTH - MENU, height=TIMELINE_HEIGHT)
    browser.open(run.replace("/timeline", "/user-metadata"), "Current Details")
    browser.picture(PICTURES / "details.png", top=80, left=MENU, width=WIDTH - MENU, height=DETAILS_HEIGHT)


def listing(cloud: Cloud) -> str:
    """The page that lists the workflows."""
    temporal = cloud.settings.temporal
    return f"{temporal.ui_url}/namespaces/{temporal.namespace}/workflows"


def entry() -> None:
    """The command."""
    forget_other_clouds()
    program = find()
    if program is None:
        sys.exit("the pictures are taken with Chromium, which is not installed: apt-get install chromium")
    try:
        asyncio.run(main(program))
    except (Failed, HostlerError) as error:
        sys.exit(f"no pictures: {error}")


if __name__ == "__main__":
    entry()
