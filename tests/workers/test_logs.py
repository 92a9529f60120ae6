"""Log lines carry what an operator searches for, in words or in JSON."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from activities.telemetry import Place, place
from hostler.settings import LogSettings
from workers import logs

SERVER = "3f0e8a52-6f0b-4f6e-9d0e-0d8f5f1f9b10"
HOST = "0b7f7d3e-52c8-4e9b-8b1f-1a2b3c4d5e6f"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The test runner's own handlers, put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def in_a_step(message: str) -> None:
    """Log from inside an activity of a server's operation."""
    environment = ActivityEnvironment()
    environment.info = replace(
        ActivityEnvironment.default_info(),
        workflow_id=f"server:{SERVER}",
        workflow_type="boot",
        workflow_run_id="run-1",
        activity_type="spawn",
        attempt=2,
        task_queue=f"hostler-host-{HOST}",
    )
    environment.run(lambda: activity.logger.warning(message, extra={"attempt": 3}))


def test_a_text_line_says_when_how_bad_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(), "control")
    logging.getLogger("any").warning("disk is %d %% full", 97, extra={"path": "/var/lib/my images", "server": SERVER})
    time, level, rest = printed(capsys).split(maxsplit=2)
    assert (len(time), level) == (len("07:24:37.120"), "WARN")
    assert rest == f'control: disk is 97 % full  path="/var/lib/my images"  server={SERVER}\n'


def test_a_json_line_is_one_object_with_the_fields_at_its_top(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), "host")
    logging.getLogger("any").info("registered", extra={"host": HOST, "level": "mine"})
    line = json.loads(printed(capsys))
    assert line.pop("time").endswith("+00:00")
    expected = {"level": "info", "process": "host", "logger": "any", "message": "registered", "host": HOST}
    assert line == expected, "a field cannot take the place of the record's own"


def test_what_temporal_knows_of_a_step_becomes_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), "host")
    in_a_step("slow")
    line = json.loads(printed(capsys))
    assert line["message"] == "slow", "the message is left alone"
    assert {name: line[name] for name in ("server", "operation", "run", "step", "try", "attempt", "host")} == {
        "server": SERVER, "operation": "boot", "run": "run-1", "step": "spawn", "try": 2, "attempt": 3, "host": HOST,
    }  # fmt: skip
    assert not any(name.startswith("temporal") for name in line)


def test_lines_of_any_logger_in_a_step_say_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), "host")
    environment = ActivityEnvironment()
    environment.info = replace(
        ActivityEnvironment.default_info(), workflow_id=f"server:{SERVER}", workflow_type="boot", activity_type="spawn"
    )

    def step() -> None:
        token = place.set(Place(attempt=2, host="compute-1"))
        logging.getLogger("drivers.any").info("tap is up")
        place.reset(token)

    environment.run(step)
    line = json.loads(printed(capsys))
    assert {name: line[name] for name in ("server", "operation", "step", "try", "attempt", "host")} == {
        "server": SERVER, "operation": "boot", "step": "spawn", "try": 1, "attempt": 2, "host": "compute-1",
    }  # fmt: skip


def test_a_workflow_that_is_about_nothing_of_ours_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), "control")
    known = {"workflow_id": "audit-2026-11-21T11:14:06Z", "workflow_type": "audit"}
    logging.getLogger("any").info("completed", extra={"temporal_workflow": known})
    assert json.loads(printed(capsys))["workflow"] == "audit-2026-11-21T11:14:06Z"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_kept(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure(LogSettings.model_validate({"format": form}), "host")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("any").exception("it broke")
    output = printed(capsys)
    assert "RuntimeError: boom" in output
    assert form == "text" or len(output.splitlines()) == 1


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(level="warning"), "host")
    logging.getLogger("any").info("nothing to see")
    assert printed(capsys) == ""


def test_configuring_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logs.configure(LogSettings(), "host")
    logging.getLogger("any").info("hello")
    assert printed(capsys).count("hello") == 1
