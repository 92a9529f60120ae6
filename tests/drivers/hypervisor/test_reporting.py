"""Heartbeats come as long as something lasts, and not a moment longer."""

import asyncio
from datetime import timedelta

import pytest

from drivers.hypervisor import reporting


async def test_the_state_of_things_is_reported_at_once_and_again_until_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "INTERVAL", timedelta(seconds=0.01))
    reports: list[str] = []
    said = "begun"
    async with reporting.reporting(reports.append, lambda: said):
        await asyncio.sleep(0.05)
        said = "half done"
        await asyncio.sleep(0.05)
    count = len(reports)
    assert (reports[0], reports[-1]) == ("begun", "half done")
    assert count >= 4
    await asyncio.sleep(0.05)
    assert len(reports) == count


async def test_what_fails_ends_the_reports_too() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        async with reporting.reporting(lambda _: None, lambda: ""):
            raise RuntimeError("failed")
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "reports"] == []
