"""What `make demo-moves` shows, in a lab that is up; and what becomes of a server that it does not ask for."""

import subprocess
import sys

import pytest

from deploy.lab.host import Host
from deploy.lab.site import Site
from hostler import Client
from hostler.contract.audit import FindingKind
from tests.end_to_end.conftest import ROOT
from tests.lab.conftest import Lab
from tests.lab.guests import boot, qemus

pytestmark = pytest.mark.real
LIMIT = 400


def demo(site: Site) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.demo.moves", "--directory", str(site.directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.usefixtures("other", "third")
async def test_a_server_survives_all_of_it_and_one_that_nobody_wants_evacuated_stays_on_the_host_without_power(
    the_lab: Lab, client: Client, one: Host
) -> None:
    left = await boot(client, "left", one)

    shown = demo(the_lab.site)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"Cut the power of {one.name}" in shown.stdout
    stays = await client.servers.show(left.id)
    assert (stays.status, stays.host) == ("SHUTOFF", one.name)
    assert [server.id for server in await client.servers.list()] == [left.id]
    assert qemus(the_lab.hosts) == [0, 0, 0]
    of_the_shelf = (await client.audit()).findings
    assert all(finding.kind is FindingKind.CACHED_IMAGE and finding.healed for finding in of_the_shelf), of_the_shelf
