"""Simulated volumes keep the promises of real ones."""

from pathlib import Path

import pytest

from drivers.volume.simulated import SimulatedVolumes
from hostler.contract.errors import NotFound, RescheduleError
from hostler.contract.guests import VolumeSpec
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.drivers.observing import names

ID = "5e4f0000-0000-4000-8000-000000000001"
SPEC = VolumeSpec(volume_id=ID, size_gib=1)


def report(_note: str) -> None:
    pass


def driver(directory: Path, *faults: SimulatedFault) -> SimulatedVolumes:
    return SimulatedVolumes(SimulatedSettings(faults=list(faults)), "sim-1", directory)


async def test_a_volume_outlives_the_worker_with_its_export(tmp_path: Path) -> None:
    before = driver(tmp_path)
    await before.create(SPEC, None, report)
    connection = await before.export(ID)

    after = driver(tmp_path)
    assert (await after.volumes(), await after.exports()) == ([ID], [ID])
    assert await after.export(ID) == connection


async def test_making_one_again_keeps_its_export(tmp_path: Path) -> None:
    volumes = driver(tmp_path)
    await volumes.create(SPEC, None, report)
    await volumes.export(ID)
    await volumes.create(SPEC, None, report)
    assert await volumes.exports() == [ID]


async def test_withdrawn_and_deleted_it_leaves_nothing_and_both_may_be_repeated(tmp_path: Path) -> None:
    volumes = driver(tmp_path)
    await volumes.create(SPEC, None, report)
    await volumes.export(ID)
    for _ in range(2):
        await volumes.withdraw(ID)
    assert (await volumes.volumes(), await volumes.exports()) == ([ID], [])
    for _ in range(2):
        await volumes.delete(ID)
    assert await volumes.volumes() == []
    assert names(tmp_path / "volumes") == []


async def test_what_is_not_there_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await driver(tmp_path).export(ID)


async def test_faults_strike(tmp_path: Path) -> None:
    volumes = driver(tmp_path, SimulatedFault(host="sim-1", call="create", message="no room"))
    with pytest.raises(RescheduleError, match="no room"):
        await volumes.create(SPEC, None, report)
    await volumes.create(SPEC, None, report)
