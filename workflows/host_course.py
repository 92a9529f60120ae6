"""What has been tried with one of a host's servers."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hostler.contract.errors import HostlerError
from hostler.contract.host_work import ServerMove
from hostler.contract.servers import OperationName

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


def in_full(error: HostlerError) -> str:
    """The error with what to do about it."""
    return f"{error}" + (f" ({error.remedy})" if error.remedy else "")
