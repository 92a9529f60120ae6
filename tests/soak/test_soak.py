"""A short soak: many operations at once while every process is killed at random."""

import random
from pathlib import Path

import pytest

from tests.soak.repertoire import missing
from tests.soak.soak import soak

MINUTES, TENANTS = 0.4, 10


def test_the_soak_knows_every_operation() -> None:
    assert missing() == set()


@pytest.mark.slow
@pytest.mark.postgres
async def test_nothing_is_lost_while_every_process_is_killed_at_random(tmp_path: Path) -> None:
    report = await soak(tmp_path, MINUTES, seed=random.SystemRandom().getrandbits(32), tenants=TENANTS)
    assert report.faults == [], report.text()
    assert sum(report.kills.values()) > 0
