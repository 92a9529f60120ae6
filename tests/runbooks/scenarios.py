"""What has happened when an operator opens a page: for each one a function of the page's name.

It yields the site with the page's variables, and asserts what must be true when the page has been followed.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from hostler.contract.servers import OnFailure
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.processes.cloud import process_cloud
from tests.runbooks.site import Site, site
from tests.upgrades.test_upgrade import holding

Scene = tuple[Site, Mapping[str, str]]
HOST, OTHER, CONTROL = "sim-1-1", "sim-2-1", "control-1"


@asynccontextmanager
async def server_stuck(directory: Path) -> AsyncIterator[Scene]:
    """A boot holds: the one host that it was allowed to try refuses."""
    broken = SimulatedFault(host=HOST, call="spawn", message="Input/output error", times=-1)
    async with process_cloud(directory / "cloud", hosts=(1, 1), simulated=SimulatedSettings(faults=[broken])) as cloud:
        await cloud.client.hosts.disable(OTHER)
        boot = await cloud.boot(on_failure=OnFailure.HOLD, max_attempts=1)
        await holding(boot)
        await cloud.client.hosts.enable(OTHER)
        async with site(cloud, directory / "site") as place:
            yield place, {"SERVER": boot.server_id, "HOST": HOST, "OTHER": OTHER}
        server = await cloud.client.servers.show(boot.server_id)
        assert (server.status, server.host, server.hold) == ("ACTIVE", OTHER, None)
