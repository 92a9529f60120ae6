"""What the Temporal UI shows of a running operation."""

from datetime import UTC, datetime, timedelta

from hostler.contract.errors import AttemptReport, ErrorDetail
from hostler.contract.servers import Choice, Hold, OperationName, Progress, Step, StepStatus
from workflows.details import markdown

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def step(name: str, status: StepStatus, attempt: int = 1, host: str | None = None, error: str | None = None) -> Step:
    """A step that took a second and a half, unless it is still to come."""
    pending = status is StepStatus.PENDING
    return Step(
        name=name,
        status=status,
        attempt=attempt,
        host=host,
        error=error,
        started_at=None if pending else BEGAN,
        finished_at=None if pending else BEGAN + timedelta(seconds=1.5),
    )


def rows(text: str) -> list[str]:
    """The tables' rows, with plain blanks."""
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in text.splitlines() if line.startswith("| ")]


def test_steps_that_are_done_say_how_long_they_took() -> None:
    text = markdown(Progress(operation="boot", steps=[step("accept", StepStatus.DONE)]), "boot web-1", [])
    assert text.startswith("**boot web-1**")
    assert rows(text) == ["| | step | took |", "| ✔  | accept  | 1.50 s |"]


def test_steps_to_come_stand_with_the_last_attempt() -> None:
    progress = Progress(
        operation="boot",
        attempt=2,
        host="b",
        steps=[
            step("spawn", StepStatus.UNDONE, 1, "a", "no room"),
            step("spawn", StepStatus.RUNNING, 2, "b"),
            step("activate", StepStatus.PENDING),
        ],
    )
    first, second = markdown(progress, "boot web-1", []).split("Attempt 2 on **b**")
    assert "Attempt 1 on **a**" in first
    assert [row.split()[1] for row in rows(first)[1:]] == ["↩"]
    assert [row.split()[1:4:2] for row in rows(second)[1:]] == [["▶", "spawn"], ["○", "activate"]]


def test_an_attempt_that_failed_says_where_and_why() -> None:
    progress = Progress(operation="boot", attempt=1, steps=[step("spawn", StepStatus.UNDONE, 1, "a", "no room")])
    report = AttemptReport(attempt=1, host="a", step="spawn", reason="no room")
    text = markdown(progress, "boot web-1", [report])
    assert "Attempt 1 on **a** failed at `spawn`: no room" in text
    assert "spawn: no room" in rows(text)[1]


def test_a_held_operation_says_why_and_how_to_decide() -> None:
    hold = Hold(
        operation=OperationName.BOOT,
        run_id="run",
        step="spawn",
        error=ErrorDetail(code="OperationFailed", message="the disk is on fire"),
        since=BEGAN,
        until=BEGAN + timedelta(days=1),
        choices=[Choice.RETRY, Choice.GIVE_UP],
    )
    text = markdown(Progress(operation="boot", server_id="web", hold=hold), "boot web-1", [])
    assert "**Holds at `spawn`**: the disk is on fire" in text
    assert "`hostler operation retry|give-up web`" in text
    assert "until 2026-01-02 00:00 UTC" in text
