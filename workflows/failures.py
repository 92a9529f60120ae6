"""The one table that says what a failed step means: go to another host, or give up."""

from dataclasses import dataclass

from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType

from hostler.contract.errors import HostlerError, OperationFailed, RescheduleError, from_application_error


@dataclass(frozen=True)
class Verdict:
    """What to do. `answered` is False when the host was silent, `known` when it is certain how far the step got."""

    reschedule: bool
    answered: bool
    known: bool
    error: HostlerError


def one_line(text: str, limit: int = 500) -> str:
    """`text` without line breaks, for faults and tables."""
    return " ".join(text.split())[:limit]


def judge(error: BaseException, *, host: str | None) -> Verdict:
    """What the failure of a step on `host` (None: on the control worker) means.

    A schedule-to-start time-out without a cause means that nothing ran; with one, an earlier try ran and its outcome
    is unknown, as it is after a heartbeat or start-to-close time-out.
    """
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, TimeoutError):
        return _judge_timeout(cause, host)
    if isinstance(cause, ApplicationError):
        ours = from_application_error(cause)
        if ours is None:
            ours = OperationFailed(one_line(f"{cause.type}: {cause.message}"))
            return Verdict(reschedule=host is not None, answered=True, known=True, error=ours)
        if ours.retryable:
            return Verdict(reschedule=host is not None, answered=True, known=True, error=ours)
        return Verdict(reschedule=isinstance(ours, RescheduleError), answered=True, known=True, error=ours)
    if isinstance(cause, HostlerError):
        return Verdict(reschedule=isinstance(cause, RescheduleError), answered=True, known=True, error=cause)
    text = one_line(f"{type(cause).__name__}: {cause}")
    return Verdict(reschedule=False, answered=True, known=True, error=OperationFailed(text))


def never_started(error: BaseException) -> bool:
    """Whether the host did not even take the step: it is not worth asking again."""
    cause = error.cause if isinstance(error, ActivityError) else None
    return isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START


def is_refusal(error: BaseException) -> bool:
    """Whether a step refused what was asked of it, by one of our errors, so that it has certainly done nothing."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, ApplicationError) and from_application_error(cause) is not None


def _judge_timeout(cause: TimeoutError, host: str | None) -> Verdict:
    if cause.type is TimeoutType.SCHEDULE_TO_START:
        ran = cause.cause is not None
        text = "does not answer" + (", and an earlier try may have got somewhere" if ran else "; nothing ran there")
    else:
        ran = True
        text = "fell silent in the middle of the step" if cause.type is TimeoutType.HEARTBEAT else "took too long"
    where = f"host {host}" if host else "the control worker"
    return Verdict(reschedule=host is not None, answered=False, known=not ran, error=OperationFailed(f"{where} {text}"))
