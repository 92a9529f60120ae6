"""A sample of the fault matrix: the same cases every time, each operation and each fault among them.

`make faults` runs all of it, and every operation also with what else is to happen when it fails.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.matrix import Matrix
from tests.faults.operations import operations
from tests.faults.plan import OF_STEPS
from tests.faults.site import Site

CASES = 22


@pytest.mark.timeout(900)
async def test_whatever_fails_an_operation_ends_as_asked_or_leaves_the_world_as_it_was(
    site: Site, tmp_path: Path
) -> None:
    wanted = {one.name for one in operations() if not one.differs_by_failure}
    only = [f"{name}/*" for name in wanted]
    results = await Matrix(replace(site), tmp_path, only=only, sample=CASES).run()

    failed = {one.case.name: [*one.problems, *one.differences] for one in results if not one.passed}
    assert failed == {}
    assert {one.case.operation for one in results if one.case.strikes} == wanted
    assert {one.case.fault for one in results if one.case.strikes} >= set(OF_STEPS)
