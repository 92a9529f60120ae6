#!/usr/bin/env python3
"""The demo: two real guests, one of which can only be built on its second attempt; then nothing is left of either.

It exits with 0 only when all of that happened. `KEEP=1` or `--keep` leaves the cloud and its servers running; the next
run, or `--stop`, removes them.
"""

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import NoReturn

from deploy.demo import cloud as demo_cloud
from deploy.demo.cloud import Cloud, Failed, free_subnet, place
from deploy.demo.traces import REFUSING, Traces, look, unseen
from deploy.environment import forget_other_clouds
from hostler.cli.output import console, note, table
from hostler.cli.watching import watch
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError
from hostler.contract.servers import OperationName, Server, StepStatus

DIRECT, MOVED = "web-1", "web-2"
COMPLAINT = "QEMU does not start: cannot allocate memory (a fault that the demo injects)"
SETTINGS = f"""
# Beside the real host one that exists only as numbers, and refuses its first guest.
[scheduler]
spread = 1  # always the very best host, not one of the best three: the demo shall be the same each time

[host.simulated]
ram_mib = 16777216  # the more free memory, the better a host: this one is tried first

[[host.simulated.faults]]
host = "{REFUSING}"
call = "spawn"
kind = "reschedule"
message = "{COMPLAINT}"
times = 1
"""
LOGIN, PING = timedelta(seconds=120), timedelta(seconds=20)


async def main(keep: bool, stop: bool, directory: Path | None) -> None:
    """Tell the story.

    Raises:
        Failed: it did not go as it should.
    """
    began, task = monotonic(), asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    with place(directory) as cloud:
        if cloud.directory.exists():
            note("A cloud of an earlier demo is there: removing it")
            await cloud.stop()
            await cloud.sweep()
        if stop:
            return
        kept = False
        try:
            await show(cloud, keep)
            kept = keep
        finally:
            if not kept:
                await end(cloud)
        if not keep:
            note(
                f"\nDone in {monotonic() - began:.0f} s. KEEP=1 make demo leaves it all running, to look at and to try."
            )


async def show(cloud: Cloud, keep: bool) -> None:
    """From the start of the cloud to the last look at the machine."""
    head("A cloud on this machine: Temporal, a control worker, a real host and a simulated one")
    hosts = await cloud.start(SETTINGS, "--simulated", "1", hosts=2)
    real = next(name for name in hosts if name != REFUSING)
    note(f"  hosts   {real}, which is this machine, and {REFUSING}, which exists only as numbers: it has far more free")
    note("          memory, so the scheduler prefers it, and its hypervisor refuses the first guest that it is given")
    note(f"  web UI  {cloud.settings.temporal.ui_url}")
    note(f"  log     {demo_cloud.LOG}")
    async with await Client.connect(cloud.settings) as client:
        await client.flavors.create("small", vcpus=1, ram_mib=128)
        await client.networks.create("lan", cidr=free_subnet())
        await client.images.create("demo", demo_cloud.IMAGE)

        head(f"Two servers at once: {DIRECT} on {real}, {MOVED} wherever the scheduler puts it")
        operations = {
            DIRECT: await client.servers.boot(DIRECT, flavor="small", networks=["lan"], image="demo", host=real),
            MOVED: await client.servers.boot(MOVED, flavor="small", networks=["lan"], image="demo"),
        }
        moved = operations[MOVED]
        note(f"  {MOVED} in the web UI: {cloud.link(moved.server_id, moved.run_id)}\n")
        servers = await outcomes(operations)
        await explain(client, servers, real)

        head("They are real: each guest's own words, and its answer to a ping")
        for server in servers:
            await proof(client, server)
        held = look(cloud.directory, servers)
        if blind := list(unseen(held)):
            raise Failed(f"two servers run, and yet nothing was found of: {', '.join(blind)}")
        if keep:
            return instructions(cloud, servers)

        head("Delete both, and look for anything that is left")
        await outcomes({server.name: await client.servers.delete(server.id) for server in servers})
        account(held, look(cloud.directory, servers))


async def outcomes(operations: dict[str, Operation]) -> list[Server]:
    """The servers, when the operations have ended well.

    Raises:
        Failed: one did not.
    """
    ends = await watch(operations)
    for name, end in ends.items():
        if isinstance(end, HostlerError):
            raise Failed(f"{name}: {end}")
    return [end for end in ends.values() if isinstance(end, Server)]


async def explain(client: Client, servers: Sequence[Server], real: str) -> None:
    """Say which attempt failed where and why, as the server's history has it."""
    for server in servers:
        if server.status != "ACTIVE" or server.host != real:
            raise Failed(f"{server.name} is {server.status} on {server.host}, and should be ACTIVE on {real}")
    events = await client.servers.events(servers[-1].id)
    steps = [event.step for event in events if event.operation is OperationName.BOOT]
    failed = [step for step in steps if step.error]
    undone = [step.name for step in steps if step.attempt == 1 and step.status is StepStatus.UNDONE]
    if [(step.attempt, step.host) for step in failed] != [(1, REFUSING)] or steps[-1].attempt != 2:
        raise Failed(f"{MOVED} should have been refused by {REFUSING} once, but it failed at: {failed}")
    [refused] = failed
    note(f"\n  {MOVED}, attempt 1 on {REFUSING}: {refused.name} failed: {refused.error}")
    note(f"         undone there: {', '.join(undone)}; its port and address were kept")
    note(f"  {MOVED}, attempt 2 on {real}: {servers[-1].status}")


async def proof(client: Client, server: Server) -> None:
    """Wait for the guest's login prompt and for its answer to a ping, and show both.

    Raises:
        Failed: it has not come up in time.
    """
    prompt, log = f"{server.name} login:", ""
    deadline = monotonic() + LOGIN.total_seconds()
    while prompt not in log:
        if monotonic() > deadline:
            raise Failed(f"{server.name} shows no login prompt after {LOGIN}; the end of its console:\n{log[-2000:]}")
        await asyncio.sleep(0.5)
        log = await client.servers.console_log(server.id)
    [address] = server.addresses
    answer = await ping(address.ip)
    words = [line for line in log.splitlines() if line.startswith("===") or prompt in line]
    for line in [f"{server.name}, on {server.host}:", *words, answer]:
        note(f"  {line}")


async def ping(ip: str) -> str:
    """The line with the guest's answer.

    Raises:
        Failed: there is none.
    """
    deadline = monotonic() + PING.total_seconds()
    while monotonic() < deadline:
        process = await asyncio.create_subprocess_exec(
            "ping", "-c", "1", "-W", "2", ip, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode()
        if process.returncode == 0:
            return f"ping {ip}: {next(line for line in output.splitlines() if 'bytes from' in line)}"
    raise Failed(f"{ip} does not answer a ping: {output}")


def account(held: Traces, left: Traces) -> None:
    """Show what both looks found.

    Raises:
        Failed: something is left.
    """
    rows = [[where, len(found) or "none", ", ".join(left[where]) or "none"] for where, found in held.items()]
    console(stderr=True).print(table(["Looked for", "While both ran", "Left behind"], rows))
    if any(left.values()):
        raise Failed("the deleted servers left something behind: see above")


def instructions(cloud: Cloud, servers: Sequence[Server]) -> None:
    """What to do with a cloud that is kept."""
    command = f"{demo_cloud.ROOT / '.venv/bin/hostler'} --config {cloud.config}"
    head("It goes on: the cloud runs in the background, with both servers")
    note(f"  {command} server list")
    note(f"  {command} server events {MOVED}")
    note(f"  {command} server console-log {DIRECT}")
    note(f"  virsh --connect qemu:///system console {servers[0].id}   (log in as root, no password; Ctrl-] leaves)")
    note("  make demo ARGS=--stop   (ends it, and removes all of it)")


async def end(cloud: Cloud) -> None:
    """Stop the cloud and remove it, however far it got."""
    note("\nStopping the cloud")
    await cloud.stop()
    for what in await cloud.sweep():
        note(f"  removed {what}")


def head(text: str) -> None:
    """A chapter."""
    console(stderr=True).print(f"\n{text}", style="bold cyan", markup=False)


def entry() -> NoReturn:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the cloud and its servers running (or set KEEP=1)")
    parser.add_argument("--stop", action="store_true", help="remove a cloud that was kept or interrupted, and end")
    parser.add_argument("--directory", type=Path, help="where its cloud is; another one than that of other demos")
    arguments = parser.parse_args()
    forget_other_clouds()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with contextlib.redirect_stderr(sys.stdout):  # one stream, so that what is piped keeps its order
        try:
            if os.geteuid() != 0:
                raise Failed("the demo makes bridges and boots real guests, for which it must be root: sudo make demo")
            keep = arguments.keep or os.environ.get("KEEP", "") not in ("", "0")
            asyncio.run(main(keep, arguments.stop, arguments.directory and arguments.directory.absolute()))
        except (Failed, HostlerError) as error:
            console(stderr=True).print(f"\nThe demo failed: {error}", style="bold red", markup=False)
            sys.exit(1)
        except asyncio.CancelledError:
            note("interrupted")
            sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    entry()
