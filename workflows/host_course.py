"""What has been tried with one of a host's servers, and what follows from that."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

from activities.interfaces.host_work import Move
from hostler.contract.errors import HostlerError
from hostler.contract.host_work import ServerMove
from hostler.contract.servers import OperationName
from workflows.failures import judge

ONE_BY_ONE = "host-work-one-by-one"
BUSY_PAUSE = timedelta(seconds=2)


@dataclass
class Course:
    """The server, since when it has its turn, and the operations that were done or refused.

    `migrated`: it is, or was, in VERIFY_RESIZE by one of these.
    """

    server: ServerMove
    began: datetime
    pause: timedelta = BUSY_PAUSE
    migrated: bool = False
    done: list[OperationName] = field(default_factory=list)

    @property
    def last(self) -> OperationName | None:
        """The operation before."""
        return self.done[-1] if self.done else None

    @property
    def goes_on(self) -> bool:
        """Whether a move has been made and nobody has confirmed it yet: that is done whoever cancels the whole."""
        return self.migrated and self.last is OperationName.MIGRATE and workflow.patched(ONE_BY_ONE)


def unseen(course: Course, failure: BaseException) -> Move:
    """What is to be done with a server when nobody could say."""
    if course.goes_on:
        return Move(operation=OperationName.CONFIRM_RESIZE)
    if is_cancelled_exception(failure) or not workflow.patched(ONE_BY_ONE):
        raise failure
    return Move(reason=in_full(judge(failure, host=None).error))


def in_full(error: HostlerError) -> str:
    """The error with what to do about it."""
    return f"{error}" + (f" ({error.remedy})" if error.remedy else "")
