"""Watching without a terminal: which lines are printed, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from hostler.cli.watching import NOTE_INTERVAL, Lines
from hostler.contract.servers import Progress, Step, StepStatus

PAUSE = NOTE_INTERVAL.total_seconds()


class Watched:
    """Lines, by a clock that goes on when it is told to."""

    def __init__(self, read: pytest.CaptureFixture[str]) -> None:
        self._read = read
        self._now = 1000.0
        self._lines = Lines(lambda: self._now)

    def passes(self, seconds: float) -> None:
        self._now += seconds

    def sees(self, *notes: str | None, run_id: str = "r", **changes: object) -> list[str]:
        """What is printed of steps that say this."""
        said = {"name": "migrate_guest", "status": StepStatus.RUNNING, "host": "sim-1"} | changes
        steps = [Step.model_validate(said | {"note": note}) for note in notes]
        self._lines.show("web", Progress(operation="live-migrate", run_id=run_id, steps=steps))
        return self._read.readouterr().err.splitlines()


@pytest.fixture
def watched(capsys: pytest.CaptureFixture[str]) -> Watched:
    return Watched(capsys)


def line(words: str) -> list[str]:
    return [f"live-migrate web: migrate_guest running on sim-1{words}"]


def test_what_a_step_says_first_is_printed_at_once_and_what_it_says_then_now_and_then(watched: Watched) -> None:
    assert watched.sees(None) == line("")
    watched.passes(0.1)
    assert watched.sees("10 %") == line(" - 10 %")
    watched.passes(PAUSE - 0.1)
    assert watched.sees("40 %") == []
    watched.passes(0.1)
    assert watched.sees("50 %") == line(" - 50 %")
    watched.passes(PAUSE - 0.1)
    assert watched.sees("90 %") == []


def test_what_was_said_is_not_said_again(watched: Watched) -> None:
    assert watched.sees("10 %") == line(" - 10 %")
    for note in ("10 %", None, "10 %"):
        watched.passes(2 * PAUSE)
        assert watched.sees(note) == []


def test_what_a_line_for_another_reason_has_said_counts(watched: Watched) -> None:
    watched.sees("10 %")
    watched.passes(PAUSE)
    assert watched.sees("50 %", retries=1) == line(" - retry 1, 50 %")
    assert watched.sees("51 %", retries=1) == []
    watched.passes(PAUSE)
    assert watched.sees("50 %", retries=1) == []
    assert watched.sees("52 %", retries=1) == line(" - retry 1, 52 %")


def test_a_change_of_the_step_itself_waits_for_nothing(watched: Watched) -> None:
    watched.sees("10 %")
    assert watched.sees("20 %", error="lost", retries=1) == line(" - retry 1, 20 %, lost")
    at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    ended = watched.sees(
        "stood still for 0.1 s", status=StepStatus.DONE, started_at=at, finished_at=at + timedelta(seconds=1)
    )
    assert ended == ["live-migrate web: migrate_guest done on sim-1 after 1.00 s - stood still for 0.1 s"]


def test_a_step_that_does_not_run_says_nothing_more(watched: Watched) -> None:
    watched.sees("10 %", status=StepStatus.FAILED)
    watched.passes(PAUSE)
    assert watched.sees("20 %", status=StepStatus.FAILED) == []


def test_each_step_of_each_run_has_its_own_time(watched: Watched) -> None:
    assert watched.sees("10 %", "1 %") == line(" - 10 %") + line(" - 1 %")
    assert watched.sees("10 %", "2 %") == []
    assert watched.sees("2 %", run_id="another") == line(" - 2 %")
