"""A cloud of several hosts on one machine, to try what one host cannot show: networks that span hosts, migration, a
host whose power or network fails.

python -m deploy.lab.lab up | down | status | kill HOST | start HOST | cut HOST | join HOST | fence HOST |
exec HOST COMMAND...
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from deploy.environment import forget_other_clouds
from deploy.lab import control, wires
from deploy.lab.disk import write_control, write_hosts
from deploy.lab.host import Host, host_of, hosts_directory, hosts_of
from deploy.lab.site import DIRECTORY, HOSTS, MOST_HOSTS, NAME, SUBNET, Refused, Site
from hostler.cli.failures import show
from hostler.cli.output import console, note, table
from hostler.client import Client
from hostler.contract.errors import HostlerError, Unavailable
from hostler.encryption import keys_file
from workers import dev, dev_secrets
from workers.preflight import COMMANDS, check_commands

NEEDED = {
    **COMMANDS,
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "tini": "tini",
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
}
READY_SECONDS = 120
ANSWER_SECONDS = 5
POLL_SECONDS = 0.2


def up(site: Site) -> None:
    """Bring the lab up: what of it is there already is left alone, but for cables, which are put in.

    Raises:
        Refused: something is in the way, or does not come up.
    """
    for problem in check_commands(NEEDED):
        raise Refused(problem.what, problem.remedy)
    wires.refuse_taken(site)
    site.save()
    wires.ensure_bridge(site)
    if not hosts_directory(site).exists():
        install(site)
    control.start(site)
    for host in hosts_of(site):
        if not host.joined:
            host.join()
        if host.init is None:
            host.start()
    wait_until_registered(site, hosts_of(site))


def install(site: Site) -> None:
    """Write all that the lab starts from. The hosts' directory is there when all is."""
    write_control(site)
    settings = control.settings_of(site)
    dev_secrets.prepare(settings)
    part = hosts_directory(site).with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    write_hosts(site, part, keys_file(settings))
    part.rename(hosts_directory(site))


def down(site: Site) -> None:
    """End the lab. Nothing is left of it."""
    for host in hosts_of(site):
        host.kill()
    control.kill(site)
    wires.remove_bridge(site)
    site.remove()


def wait_until_registered(site: Site, hosts: Sequence[Host]) -> None:
    """Until these hosts, which are on, serve the cloud.

    Raises:
        Refused: one does not, for long.
    """
    deadline = time.monotonic() + READY_SECONDS
    while waiting := [host for host in hosts if not host.registered]:
        if control.pid(site) is None and time.monotonic() > deadline - READY_SECONDS + ANSWER_SECONDS:
            raise Refused(f"the control plane does not run:\n{control.last_words(site)}", "bring the lab up: make lab")
        off = [host for host in waiting if host.init is None]
        if off or time.monotonic() > deadline:
            bad = (off or waiting)[0]
            raise Refused(f"{bad.name} does not come up:\n{bad.last_words()}", f"see the logs in {bad.directory}/log")
        time.sleep(POLL_SECONDS)
    asyncio.run(_until_up(site, {host.name for host in hosts}))


async def _until_up(site: Site, names: set[str]) -> None:
    """Until the cloud has noticed: it takes a moment, in which it gives them no servers."""
    try:
        async with asyncio.timeout(READY_SECONDS), await _connected(site) as client:
            while not names <= await _hosts_up(client):  # noqa: ASYNC110 - Temporal knows
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise Refused(
            f"the hosts run, and the cloud does not hear of them:\n{control.last_words(site)}",
            f"see {site.directory / control.LOG}",
        ) from None


async def _hosts_up(client: Client) -> set[str]:
    """The names of the hosts that are up; none as long as no control worker answers."""
    with contextlib.suppress(Unavailable):
        return {host.name for host in await client.hosts.list() if host.up}
    return set()


async def _connected(site: Site) -> Client:
    """A client, as soon as the control plane takes one: hosts that were up all the time do not wait for it."""
    while True:
        try:
            return await Client.connect(control.settings_of(site))
        except Unavailable:
            await asyncio.sleep(POLL_SECONDS)


def status(site: Site) -> None:
    """Show what is on, and what the cloud thinks of it."""
    known = asyncio.run(_known(site)) if control.pid(site) else {}
    rows = []
    for host in hosts_of(site):
        power = f"on, process {init.pid}" if (init := host.init) else "off"
        cloud = {True: "up", False: "down", None: "unknown"}[known.get(host.name)]
        rows.append([host.name, host.address, power, "in" if host.joined else "out", host.guests(), cloud])
    console().print(table(["Host", "Address", "Power", "Cable", "Guests", "For the cloud"], rows))
    note(f"control plane: {f'process {control.pid(site)}, {site.ui}' if control.pid(site) else 'off'}")


async def _known(site: Site) -> dict[str, bool]:
    """Which hosts the cloud thinks to be up."""
    with contextlib.suppress(HostlerError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            async with await Client.connect(control.settings_of(site)) as client:
                return {host.name: host.up for host in await client.hosts.list()}
    return {}


def instructions(site: Site, seconds: float) -> str:
    """What to do with a lab."""
    lab, [hostler], image = _command(site), dev.hostler(), control.ROOT / ".cache" / "demo.qcow2"
    return f"""\
The lab is up after {seconds:.1f} s: {", ".join(f"{host.name} ({host.address})" for host in hosts_of(site))}
  web UI  {site.ui}
  state   {site.directory}
Make servers on it:
  export HOSTLER_CONFIG={site.config}
  {hostler} host list
  {hostler} flavor create small --vcpus 1 --ram 128
  {hostler} network create lan --cidr 10.20.0.0/24
  {hostler} image create demo --file {image}
  {hostler} server create web-1 --flavor small --network lan --image demo --host lab-1 --wait
Look at it and break it:
  {lab("status")}
  {lab("exec")} lab-1 virsh list
  {lab("kill")} lab-1     # cut its power; start: switch it on again
  {lab("cut")} lab-1      # pull its network cable out; join: put it back in
  {lab("down")}"""


def _command(site: Site) -> Callable[[str], str]:
    """How to call a command of this lab."""
    where = "" if site.directory == DIRECTORY else f" --directory {site.directory}"
    return lambda command: f"{sys.executable} -m deploy.lab.lab {command}{where}"


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One command at a time for a lab. An abstract socket is the lock: nothing is left of it, however we end.

    Raises:
        Refused: another command is at work.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0hostler-lab:{directory.absolute()}")
        except OSError:
            raise Refused(f"another command is at work on the lab in {directory}", "let it end first") from None
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description=(__doc__ or "").split("\n\n")[0])
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--directory", type=Path, default=DIRECTORY, help=f"where the lab is [default: {DIRECTORY}]")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("up", parents=[where], help="bring the lab up, or what of it is not")
    command.add_argument("--name", help=f"of the bridge [default: {NAME}]")
    command.add_argument("--subnet", help=f"of the hosts and the control plane [default: {SUBNET}]")
    command.add_argument("--hosts", type=int, help=f"how many, up to {MOST_HOSTS} [default: {HOSTS}]")
    command.add_argument("--shared", action="store_true", help="guests' disks in a directory that all hosts share")
    commands.add_parser("down", parents=[where], help="end it; nothing is left")
    commands.add_parser("status", parents=[where], help="what is on")
    for name, text in {
        "kill": "cut a host's power",
        "start": "switch it on again",
        "cut": "pull a host's network cable out",
        "join": "put it back in",
    }.items():
        commands.add_parser(name, parents=[where], help=text).add_argument("host")
    command = commands.add_parser("fence", parents=[where], help="see that a host is off; what the control plane runs")
    command.add_argument("host")
    command.add_argument("uuid", nargs="?", help="not looked at")
    command = commands.add_parser("exec", parents=[where], help="run a command on a host")
    command.add_argument("host")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments say. The exit code.

    Raises:
        Refused: that cannot be done.
    """
    if os.geteuid() != 0:
        raise Refused(
            "a lab is made of namespaces, bridges and real guests, for which one must be root", "sudo make lab"
        )
    began = time.monotonic()
    if arguments.command == "up":
        with alone(arguments.directory):
            site = Site.choose(arguments.directory, arguments.name, arguments.subnet, arguments.hosts, arguments.shared)
            up(site)
        note(instructions(site, time.monotonic() - began))
        return 0
    if arguments.command == "down" and not arguments.directory.exists():
        note(f"there is no lab in {arguments.directory}")
        return 0
    site = Site.load(arguments.directory)
    match arguments.command:
        case "status":
            status(site)
        case "exec":
            words = arguments.words or [os.environ.get("SHELL", "sh")]
            return subprocess.run(host_of(site, arguments.host).inside(*words)).returncode
        case "down":
            with alone(site.directory):
                down(site)
            note(f"The lab is down, and nothing of it is left ({time.monotonic() - began:.1f} s)")
        case _:
            with alone(site.directory):
                _switch(site, host_of(site, arguments.host), arguments.command)
    return 0


def _switch(site: Site, host: Host, command: str) -> None:
    match command:
        case "kill":
            if host.init is None:
                raise Refused(f"{host.name} is off already", f"start it: start {host.name}")
            host.kill()
            note(f"{host.name} has no power")
        case "fence":
            host.kill()
            note(f"{host.name} is off")
        case "start":
            host.start()
            if host.joined:
                wait_until_registered(site, [host])
                note(f"{host.name} is up")
            else:
                note(f"{host.name} is on, and its cable is out: join {host.name}")
        case "cut":
            host.cut()
            note(f"{host.name} is cut off")
        case _:
            host.join()
            note(f"{host.name} is joined")


def entry() -> NoReturn:
    """The command."""
    arguments = _parser().parse_args()
    forget_other_clouds()
    try:
        sys.exit(run(arguments))
    except Refused as refusal:
        show(str(refusal), remedy=refusal.remedy)
    except HostlerError as error:
        show(str(error), remedy=error.remedy)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1)


if __name__ == "__main__":
    entry()
