"""Two simulated hosts, and a guest that runs on the first."""

from pathlib import Path

import pytest

from hostler.contract.guests import GuestSpec
from tests.drivers.hypervisor.simulated import ONE, OTHER, Host, guest, ignore


@pytest.fixture
def one(tmp_path: Path) -> Host:
    return Host(tmp_path / "one", ONE)


@pytest.fixture
def other(tmp_path: Path) -> Host:
    return Host(tmp_path / "other", OTHER)


@pytest.fixture
async def running(one: Host) -> GuestSpec:
    spec = guest()
    await one.driver.spawn(spec, None, ignore)
    await one.driver.resume(spec.server_id)
    return spec
