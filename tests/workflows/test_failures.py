"""What the failure of a step means: another host, or the end."""

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutError, TimeoutType

from hostler.contract.errors import ImageRejected, OperationFailed, RescheduleError, Unavailable
from workflows.failures import judge


def failed(cause: BaseException) -> ActivityError:
    """An activity's failure, as a workflow sees it."""
    error = ActivityError(
        "it failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="worker",
        activity_type="spawn",
        activity_id="1",
        retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
    )
    error.__cause__ = cause
    return error


def timed_out(kind: TimeoutType, cause: BaseException | None = None) -> ActivityError:
    """A time-out, of a first try or (with a cause) of a later one."""
    timeout = TimeoutError("too late", type=kind, last_heartbeat_details=[])
    timeout.__cause__ = cause
    return failed(timeout)


def test_a_host_that_refuses_is_left() -> None:
    verdict = judge(failed(RescheduleError("no room").to_application_error()), host="a")
    assert (verdict.reschedule, verdict.answered, verdict.known) == (True, True, True)
    assert verdict.error.detail.message == "no room"


def test_what_would_fail_elsewhere_too_ends_the_operation() -> None:
    verdict = judge(failed(ImageRejected("unsafe").to_application_error()), host="a")
    assert not verdict.reschedule
    assert isinstance(verdict.error, ImageRejected)


@pytest.mark.parametrize("error", [ApplicationError("boom", type="RuntimeError"), Unavailable("libvirtd is down")])
def test_what_broke_on_one_host_may_work_on_another_but_there_is_one_control_plane(error: Exception) -> None:
    cause = error.to_application_error() if isinstance(error, Unavailable) else error
    assert judge(failed(cause), host="a").reschedule
    assert not judge(failed(cause), host=None).reschedule


def test_a_task_that_nobody_took_did_not_run() -> None:
    verdict = judge(timed_out(TimeoutType.SCHEDULE_TO_START), host="a")
    assert (verdict.reschedule, verdict.answered, verdict.known) == (True, False, True)
    assert "nothing ran there" in verdict.error.detail.message


@pytest.mark.parametrize(
    "failure",
    [
        timed_out(TimeoutType.SCHEDULE_TO_START, cause=ApplicationError("first try")),
        timed_out(TimeoutType.HEARTBEAT),
        timed_out(TimeoutType.START_TO_CLOSE),
    ],
    ids=["an earlier try ran", "silent in the middle", "too slow"],
)
def test_the_outcome_is_unknown_when(failure: ActivityError) -> None:
    verdict = judge(failure, host="a")
    assert (verdict.reschedule, verdict.answered, verdict.known) == (True, False, False)


def test_reasons_are_one_line() -> None:
    error = judge(failed(ApplicationError("two\nlines", type="OSError")), host="a").error
    assert isinstance(error, OperationFailed)
    assert error.detail.message == "OSError: two lines"
