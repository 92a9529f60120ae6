"""The lab's control plane, on the machine itself: what `hostler dev` runs, without any host.

As a program (`python -m deploy.lab.control DIRECTORY`) it is that, until SIGTERM.
"""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from deploy.demo.cloud import Cloud
from deploy.lab.relay import relay
from deploy.lab.site import TEMPORAL_PORT, Refused, Site
from hostler.settings import Settings, load
from workers import dev, dev_secrets, preflight, temporal_server

ROOT = Path(__file__).resolve().parents[2]
LOG = "control.log"
DEATH_SECONDS = 10


def settings_of(site: Site) -> Settings:
    """The settings with which the control plane runs."""
    return load(site.config)


def pid(site: Site) -> int | None:
    """The supervisor's process, while it runs."""
    return Cloud(site.control).pid()


def start(site: Site) -> None:
    """Start it in the background, unless it runs.

    Raises:
        Refused: its ports are taken.
    """
    if pid(site) is not None:
        return
    for problem in preflight.check_ports(settings_of(site)):
        raise Refused(problem.what, problem.remedy)
    taken = preflight.port_problem("temporal.address", str(site.address), TEMPORAL_PORT)
    if taken is not None:
        raise Refused(
            f"at {site.address}, where the hosts look for Temporal, {taken.what}",
            "stop that: it listens on all of this machine's addresses",
        )
    with (site.directory / LOG).open("wb") as log:
        command = [sys.executable, "-m", "deploy.lab.control", str(site.directory)]
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")},
        )


def kill(site: Site) -> None:
    """End it at once; for good, since its files go too. Its children die with it."""
    supervisor = pid(site)
    if supervisor is None:
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(supervisor)
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=DEATH_SECONDS)


def last_words(site: Site) -> str:
    """The end of its log."""
    log = site.directory / LOG
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "it has said nothing"


def run(site: Site) -> None:
    """Be the control plane."""
    settings = settings_of(site)
    with dev.lock(settings):
        dev_secrets.prepare(settings)
        plan = dev.plan(settings, site.config, libvirt=False, simulated=0)

        asyncio.run(_run(site, settings, plan))


async def _run(site: Site, settings: Settings, plan: dev.Plan) -> None:
    async def ready() -> str:
        await dev.hosts_up(settings, 0)
        return f"the control plane of {site.name}: {site.ui}"

    where = temporal_server.host_port(settings.temporal.address, TEMPORAL_PORT)
    async with relay((str(site.address), TEMPORAL_PORT), to=where):
        await dev.run(plan, ready)


if __name__ == "__main__":
    run(Site.load(Path(sys.argv[1])))
