"""What `make demo-moves` shows, in a lab that is up; and what becomes of a server that it does not ask for."""

import subprocess
import sys
from pathlib import Path

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


def demo(site: Site, said: Path) -> int:
    """Its exit code. What it says is shown, too, where it takes too long."""
    words = [sys.executable, "-m", "deploy.demo.moves", "--directory", str(site.directory)]
    try:
        with said.open("w") as output:
            return subprocess.run(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT).returncode
    finally:
        print(said.read_text())


@pytest.mark.usefixtures("other", "third")
async def test_a_server_survives_all_of_it_and_one_that_nobody_wants_evacuated_stays_on_the_host_without_power(
    the_lab: Lab, client: Client, one: Host, tmp_path: Path
) -> None:
    left = await boot(client, "left", one)

    said = tmp_path / "said"
    assert demo(the_lab.site, said) == 0
    assert f"Cut the power of {one.name}" in said.read_text()
    stays = await client.servers.show(left.id)
    assert (stays.status, stays.host) == ("SHUTOFF", one.name)
    assert [server.id for server in await client.servers.list()] == [left.id]
    assert qemus(the_lab.hosts) == [0, 0, 0]
    of_the_shelf = (await client.audit()).findings
    assert all(finding.kind is FindingKind.CACHED_IMAGE and finding.healed for finding in of_the_shelf), of_the_shelf
