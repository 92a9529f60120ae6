"""The fence command: what it leaves behind."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.control.fencing import fence
from hostler.contract.errors import Unavailable


@pytest.mark.parametrize("output", ["", ">/dev/null 2>&1"])
async def test_what_the_command_has_started_ends_with_it(tmp_path: Path, output: str) -> None:
    late = tmp_path / "late"
    command = ["/bin/sh", "-c", f"(sleep 1; echo late > {late}) {output} & exit 0"]

    async def fences() -> None:
        await ActivityEnvironment().run(fence, command, timedelta(seconds=0.3), "node-1", "id")

    if output:
        await fences()
    else:  # as long as somebody may still say something it has not ended
        with pytest.raises(Unavailable, match="has not ended"):
            await fences()

    await asyncio.sleep(1.5)
    assert not late.exists()
