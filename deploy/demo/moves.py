#!/usr/bin/env python3
"""The moves: one real server is resized, migrated while it runs, evacuated from a host without power, and shelved.

It plays in the lab, or in that of another directory, which it brings up if that is off and leaves on. It exits with 0
only when all of that happened.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import NoReturn, TypeVar

from deploy.demo.cloud import IMAGE, Failed, free_subnet
from deploy.demo.demo import head, outcomes
from deploy.environment import forget_other_clouds
from deploy.lab import control, lab
from deploy.lab.host import Host, hosts_of
from deploy.lab.site import DIRECTORY, Refused, Site
from hostler.cli.output import console, note
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError
from hostler.contract.servers import Server
from workers.dev import hostler

WEB, WATCHER = "moves-web", "moves-watcher"
SMALL, MEDIUM, NETWORK, PICTURE = "moves-small", "moves-medium", "moves", "moves-demo"
LIMIT = timedelta(minutes=3)
POLL_SECONDS = 0.3
SHOWN = ("Began", "Operation", "Step", "Status", "Host", "Time", "Note")
HISTORY = ("server", "events", WEB, *(word for column in SHOWN for word in ("-c", column)))
TOLD = {"boot", "resize", "confirm-resize", "live-migrate", "evacuate", "shelve", "unshelve"}
WHY = ("the guest stood still for", "is down since", "destroy_guest", "owed since")
"""How long, why, and that the host that was lost has cleaned up."""
DEFINED = ("virsh", "list", "--all", "--uuid")
WINDOW, EVERY = 25, 0.2
FOUND_AGAIN = 1.0
"""Seconds that the network may take to learn where a guest is now: QEMU announces it five times within that."""
# The second guest pings the first all the time, and says on its console how many of each few pings were answered.
PINGS = f"""#!/bin/sh
while :; do
    echo "=== window $(ping -q -c {WINDOW} -i {EVERY} -W 1 %s | sed -n 's/, [0-9]*%% packet loss//p')" >/dev/console
done
"""
Seen = TypeVar("Seen")
ANSWERED = re.compile(r"=== window (\d+) packets transmitted, (\d+) packets received")
TICK, STOOD_STILL = re.compile(r"tick (\d+)"), re.compile(r"stood still for (\d+) ms")


async def main(directory: Path) -> None:
    """Tell the story.

    Raises:
        Failed: it did not go as it should.
    """
    began = monotonic()
    site = Site.choose(directory, None, None, None)
    head(f"The lab: {site.hosts} hosts on this machine, each with its own kernel namespaces, libvirt and worker")
    with lab.alone(site.directory):
        await asyncio.to_thread(lab.up, site)
    for host in hosts_of(site):
        note(f"  {host.name}  {host.address}")
    note(f"  web UI  {site.ui}")
    async with await Client.connect(control.settings_of(site)) as client:
        await sweep(client)
        await Story(site, client).tell()
    end = "make lab-down" + ("" if site.directory == DIRECTORY else f" ARGS='--directory {site.directory}'")
    note(f"\nDone in {monotonic() - began:.0f} s. The lab is still up, to look at and to try; {end} ends it.")


async def sweep(client: Client) -> None:
    """Remove what an interrupted demo has left, and fill the catalogue."""
    left = [server for server in await client.servers.list() if server.name in (WEB, WATCHER)]
    for server in left:
        await (await client.servers.delete(server.id)).result()
    if SMALL not in {flavor.name for flavor in await client.flavors.list()}:
        await client.flavors.create(SMALL, vcpus=1, ram_mib=128)
    if MEDIUM not in {flavor.name for flavor in await client.flavors.list()}:
        await client.flavors.create(MEDIUM, vcpus=1, ram_mib=160)
    if NETWORK not in {network.name for network in await client.networks.list()}:
        await client.networks.create(NETWORK, cidr=free_subnet())
    if PICTURE not in {image.name for image in await client.images.list()}:
        await client.images.create(PICTURE, IMAGE)


class Story:
    """One server's life."""

    def __init__(self, site: Site, client: Client) -> None:
        self.client = client
        self.config = site.config
        self.hosts = {host.name: host for host in hosts_of(site)}
        self.first, _, self.third = list(self.hosts)[:3]

    async def tell(self) -> None:
        """From its boot to its end."""
        head(f"{WEB} on {self.first}; {WATCHER} on {self.third} pings it all the time, over the network of both")
        web = await self.boot(WEB, self.first)
        self.web = web.id
        watcher = await self.boot(WATCHER, self.third, PINGS % web.addresses[0].ip)
        await self.ticks(5)
        await self.until(lambda: self.windows(watcher), f"{WATCHER} hears of {WEB}")

        await self.resize()
        await self.live_migrate(watcher)
        await self.lose_power()
        await self.shelve()

        head("The history of that server")
        await self.history()
        await outcomes({name: await self.client.servers.delete(name) for name in (WEB, WATCHER)})

    async def boot(self, name: str, host: str, user_data: str | None = None) -> Server:
        """A server that counts the seconds on its console, and that is evacuated when its host fails."""
        operation = await self.client.servers.boot(
            name,
            flavor=SMALL,
            networks=[NETWORK],
            image=PICTURE,
            host=host,
            user_data=base64.b64encode(user_data.encode()).decode() if user_data else None,
            metadata={"tick": "1", "hostler:evacuate": "true"},
        )
        return await self.done(operation)

    async def resize(self) -> None:
        """To a larger flavor, on another host, and confirmed."""
        head(f"Resize it to {MEDIUM}: built anew on another host, from its own disk; then confirm")
        resized = await self.done(await self.client.servers.resize(self.web, MEDIUM))
        note(f"  {resized.status}: {resized.flavor} on {resized.host}")
        confirmed = await self.done(await self.client.servers.confirm_resize(self.web))
        self.expect(confirmed.status == "ACTIVE" and confirmed.flavor == MEDIUM, f"it is {confirmed.status}")
        await self.ticks(5)

    async def live_migrate(self, watcher: Server) -> None:
        """Back while it runs: its counter goes on, and hardly a ping is lost.

        So it is the same host each time that loses its power. Were it another one within the hour, nothing would be
        evacuated: the watch over hosts takes two for a sign that it is rather the network.
        """
        source, to = (await self.client.servers.show(self.web)).host, self.first
        head(f"Migrate it from {source} to {to} while it runs")
        await self.until(lambda: self.all_answered(watcher), f"{WATCHER} hears of {WEB}, which has just booted")
        before, windows = await self.tick(), len(await self.windows(watcher))
        moved = await self.done(await self.client.servers.live_migrate(self.web, host=to))
        self.expect(moved.host == to, f"it is on {moved.host}")
        log = await self.until(lambda: self.on_new_console(before), f"{WEB} goes on counting on {to}")
        self.expect("=== source" not in log, "the guest was booted again")
        events = await self.client.servers.events(self.web)
        sent = [event.step.note or "" for event in events if event.step.name == "migrate_guest"][-1]
        note(f"  {sent}")
        note(f"  its counter was at {before} on {source}, and went on at {TICK.findall(log)[0]} on {to}")
        await self.until(lambda: self.more_windows(watcher, windows + 2), f"{WATCHER} goes on pinging")
        seen = (await self.windows(watcher))[windows:]
        lost = sum(sent - answered for sent, answered in seen)
        note(f"  of {sum(sent for sent, _ in seen)} pings, one every {EVERY} s, {lost} got no answer")
        found = STOOD_STILL.search(sent)
        stood_still = int(found.group(1)) / 1000 if found else 0
        self.expect(found is not None, "nothing says how long it stood still")
        self.expect(lost * EVERY <= stood_still + FOUND_AGAIN, f"{lost} pings were lost")

    async def lose_power(self) -> None:
        """Its host is switched off: it is fenced, the server evacuated; the host comes back clean."""
        before = await self.client.servers.show(self.web)
        dead = before.host
        assert dead is not None
        head(f"Cut the power of {dead}: nobody is told")
        began = monotonic()
        await self.switch(self.hosts[dead], on=False)
        server = await self.until(lambda: self.evacuated(dead), f"{WEB} is evacuated")
        note(
            f"  {monotonic() - began:.0f} s later {WEB} is {server.status} on {server.host}, "
            f"at {server.addresses[0].ip} as before"
        )
        self.expect(server.addresses == before.addresses, f"it was at {before.addresses[0].ip}")
        await self.ticks(3)
        head(f"Switch {dead} on again: before anything else it removes what it had of {WEB}")
        await self.switch(self.hosts[dead], on=True)
        await self.until(lambda: self.clean(dead), f"{dead} is clean")
        note(f"  {dead} is up, owes nothing, and has {self.hosts[dead].guests()} guests")
        await self.client.hosts.enable(dead)

    async def shelve(self) -> None:
        """On the shelf it takes nothing of any host; then it is back."""
        head("Shelve it, and bring it back")
        shelved = await self.done(await self.client.servers.shelve(self.web))
        note(f"  {shelved.status}, on host {shelved.host or 'none'}")
        self.expect(shelved.host is None, f"it is on {shelved.host}")
        back = await self.done(await self.client.servers.unshelve(self.web))
        note(f"  {back.status} on {back.host}")
        await self.ticks(3)

    async def history(self) -> None:
        """What the command line says of it."""
        note(f"$ hostler {' '.join(HISTORY)}")
        told = await asyncio.create_subprocess_exec(
            *hostler(*HISTORY), env={**os.environ, "HOSTLER_CONFIG": str(self.config)}, stdout=PIPE, stderr=STDOUT
        )
        said = (await told.communicate())[0].decode()
        console(stderr=True).out(said, highlight=False)
        self.expect(told.returncode == 0, "the command failed")
        told_all = set(said.split()) >= TOLD and all(words in said for words in WHY)
        self.expect(told_all, "the history does not tell it all")

    # What it sees.

    async def done(self, operation: Operation) -> Server:
        """The server, when the operation has ended well."""
        [server] = await outcomes({operation.operation.value: operation})
        return server

    async def tick(self) -> int:
        """Where the guest's counter is; 0 before it counts."""
        found = TICK.findall(await self.client.servers.console_log(self.web))
        return int(found[-1]) if found else 0

    async def ticks(self, count: int) -> None:
        """Return when the guest has counted that far."""

        async def reached() -> bool:
            return await self.tick() >= count

        await self.until(reached, f"{WEB} counts to {count}")

    async def on_new_console(self, before: int) -> str | None:
        """What the guest wrote on its new host, once that counts on."""
        log = await self.client.servers.console_log(self.web)
        found = [int(number) for number in TICK.findall(log)]
        return log if found and found[-1] > before else None

    async def windows(self, watcher: Server) -> list[tuple[int, int]]:
        """How many pings were sent and answered, in each window so far."""
        log = await self.client.servers.console_log(watcher.id)
        return [(int(sent), int(answered)) for sent, answered in ANSWERED.findall(log)]

    async def all_answered(self, watcher: Server) -> bool:
        """Whether the last of these windows lacks no answer: what is lost from now on is lost on the way."""
        sent, answered = (await self.windows(watcher))[-1]
        return sent == answered

    async def more_windows(self, watcher: Server, count: int) -> bool:
        """Whether there are so many."""
        return len(await self.windows(watcher)) >= count

    async def evacuated(self, dead: str) -> Server | None:
        """The server, once it runs elsewhere."""
        server = await self.client.servers.show(self.web)
        return server if server.status == "ACTIVE" and server.host not in (None, dead) else None

    async def clean(self, name: str) -> bool:
        """Whether the host serves, and has nothing left to do and no guest."""
        host = await self.client.hosts.show(name)
        if not host.up or host.down_since is not None or host.owed or self.hosts[name].guests():
            return False
        return not await asyncio.to_thread(self.has_something, self.hosts[name])

    def has_something(self, host: Host) -> bool:
        """Whether the host has a domain or files of the server."""
        defined = subprocess.run(host.inside(*DEFINED), check=True, capture_output=True, text=True).stdout
        return self.web in defined or any(host.directory.glob(f"**/guests/{self.web}"))

    async def switch(self, host: Host, *, on: bool) -> None:
        """Cut a host's power, or give it back."""
        await asyncio.to_thread(host.start if on else host.kill)

    async def until(self, look: Callable[[], Awaitable[Seen | None]], what: str) -> Seen:
        """What a look finds, when it finds something.

        Raises:
            Failed: it does not, for long.
        """
        deadline = monotonic() + LIMIT.total_seconds()
        while monotonic() < deadline:
            if seen := await look():
                return seen
            await asyncio.sleep(POLL_SECONDS)
        raise Failed(f"for {LIMIT} it has not happened that {what}")

    def expect(self, happened: bool, otherwise: str) -> None:
        """Raises Failed unless it happened."""
        if not happened:
            raise Failed(otherwise)


def entry() -> NoReturn:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help=f"the lab's state (default: {DIRECTORY})")
    directory = parser.parse_args().directory
    forget_other_clouds()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with contextlib.redirect_stderr(sys.stdout):  # one stream, so that what is piped keeps its order
        try:
            if os.geteuid() != 0:
                raise Failed("the lab is made of namespaces, for which one must be root: sudo make demo-moves")
            asyncio.run(main(directory))
        except (Failed, Refused, HostlerError) as error:
            console(stderr=True).print(f"\nThe demo failed: {error}", style="bold red", markup=False)
            sys.exit(1)
        except KeyboardInterrupt:
            note("interrupted")
            sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    entry()
