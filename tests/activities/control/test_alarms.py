"""The alarm command: what it is told, and who is not."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ActivityAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.control.alarms import call, have_called
from hostler.contract.errors import Unavailable
from hostler.contract.host_work import Alarm, AlarmKind

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LOST = Alarm(kind=AlarmKind.HOSTS_LOST, since=START, message="2 hosts are lost")
STUCK = Alarm(
    kind=AlarmKind.HOST_STUCK, since=START, message="node-1 is silent:\n\0 no power", host_id="id-1", host="node-1"
)


class Temporal:
    """Knows what was begun."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.begun: list[str] = []
        self.refuses = refuses

    async def start_activity(self, name: str, alarm: Alarm, **options: Any) -> None:
        if self.refuses:
            raise self.refuses
        self.begun.append(options["id"])


async def called(alarm: Alarm, *command: str, timeout: timedelta = MINUTE) -> None:
    """Run the command for an alarm."""
    await ActivityEnvironment().run(call, command, timeout, alarm)


async def test_the_command_is_told_what_has_happened_and_none_of_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_DATABASE__URL", "secret")
    said = tmp_path / "said"

    await called(STUCK, "/bin/sh", "-c", f'(echo "$1|$2"; env) > {said}', "alarm")

    first, *environment = said.read_text().splitlines()
    assert first == "host-stuck|node-1 is silent:   no power"
    assert {line for line in environment if line.startswith("HOSTLER_")} == {
        "HOSTLER_ALARM=host-stuck",
        "HOSTLER_ALARM_SINCE=2026-07-01T12:00:00Z",
        "HOSTLER_ALARM_MESSAGE=node-1 is silent:   no power",
        "HOSTLER_RUNBOOK=too-many-hosts-lost",
        "HOSTLER_HOST_NAME=node-1",
        "HOSTLER_HOST_ID=id-1",
    }


async def test_an_alarm_that_is_about_many_hosts_names_none(tmp_path: Path) -> None:
    said = tmp_path / "said"
    await called(LOST, "/bin/sh", "-c", f"env > {said}")
    assert "HOSTLER_HOST_" not in said.read_text()


async def test_a_command_that_fails_or_hangs_is_tried_again_and_the_log_has_what_nobody_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Unavailable, match="the alarm command ended with status 3: no line"):
        await called(LOST, "/bin/sh", "-c", "echo no line; exit 3")
    with pytest.raises(Unavailable, match=r"has not ended within 0\.2 s"):
        await called(LOST, "/bin/sh", "-c", "sleep 60", timeout=timedelta(seconds=0.2))
    with pytest.raises(Unavailable, match="the alarm command cannot be run"):  # on this control worker
        await called(LOST, "/nowhere/alarm")
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [("nobody was called" in one, "2 hosts are lost" in one) for one in errors] == [(True, True)] * 3


async def test_each_alarm_is_one_call_however_often_it_is_asked_for() -> None:
    temporal = Temporal()
    keys = await have_called(temporal, MINUTE, [LOST, STUCK])  # type: ignore[arg-type]  # what is used of it
    assert keys == [LOST.key, STUCK.key]
    assert temporal.begun == [f"call_person:{key}" for key in keys]
    assert len({*keys, LOST.model_copy(update={"since": START + MINUTE}).key}) == 3
    again = Temporal(refuses=ActivityAlreadyStartedError("call_person", "call_person"))
    assert await have_called(again, MINUTE, [LOST]) == [LOST.key]  # type: ignore[arg-type]  # what is used of it


async def test_a_call_that_temporal_does_not_take_is_asked_for_again_and_ends_no_look() -> None:
    away = Temporal(refuses=RPCError("away", RPCStatusCode.UNAVAILABLE, b""))
    assert await have_called(away, MINUTE, [LOST]) == []  # type: ignore[arg-type]  # what is used of it
