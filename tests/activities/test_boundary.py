"""Errors on their way out of an activity."""

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.boundary import ErrorBoundary
from hostler.contract.errors import NoValidHost, RescheduleError, Unavailable, from_application_error


class Raises(ActivityInboundInterceptor):
    """An activity that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        raise self.error


async def leaving(error: Exception) -> Exception:
    """What becomes of the error."""
    call = ExecuteActivityInput(fn=lambda: None, args=[], executor=None, headers={})
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, the tests say
        await ErrorBoundary().intercept_activity(Raises(error)).execute_activity(call)
    return caught.value


@pytest.mark.parametrize("error", [RescheduleError("no", value=3), NoValidHost("none", hosts_considered=7)])
async def test_ours_travel_whole_and_are_not_retried(error: RescheduleError | NoValidHost) -> None:
    left = await leaving(error)
    assert isinstance(left, ApplicationError)
    assert left.non_retryable
    arrived = from_application_error(left)
    assert type(arrived) is type(error)
    assert arrived is not None
    assert arrived.detail == error.detail


async def test_what_may_be_there_in_a_moment_is_retried() -> None:
    left = await leaving(Unavailable("the database is away"))
    assert isinstance(left, ApplicationError)
    assert not left.non_retryable


async def test_a_group_is_told_by_its_first() -> None:
    left = await leaving(ExceptionGroup("undo failed", [OSError("disk"), ValueError("x")]))
    assert isinstance(left, ApplicationError)
    assert (left.type, left.message) == ("ExceptionGroup", "undo failed: disk")


async def test_others_pass_as_they_are() -> None:
    error = RuntimeError("a bug")
    assert await leaving(error) is error
