"""Every error that Hostler raises on purpose, and how it travels through Temporal.

An error says what is wrong, where (`field`, `value`) and what to do (`remedy`). It crosses process borders as an
`ApplicationError` whose type is the class's name and whose only detail is `ErrorDetail`.
"""

from typing import ClassVar

from pydantic import BaseModel
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory


class FilterReport(BaseModel):
    """What one scheduler filter removed. `hosts` names at most a few of the `removed` ones."""

    filter: str
    removed: int
    hosts: list[str] = []
    reason: str = ""


class AttemptReport(BaseModel):
    """What one host said when it was tried."""

    attempt: int
    host: str
    step: str
    reason: str


class ErrorDetail(BaseModel):
    """The part of an error that programs read."""

    code: str
    message: str
    field: str | None = None
    value: str | None = None
    remedy: str | None = None
    hosts_considered: int | None = None
    filters: list[FilterReport] = []
    attempts: list[AttemptReport] = []


class HostlerError(Exception):
    """The base of all of them. `retryable` says whether the same call may succeed a moment later."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        value: object = None,
        remedy: str | None = None,
        hosts_considered: int | None = None,
        filters: list[FilterReport] | None = None,
        attempts: list[AttemptReport] | None = None,
    ) -> None:
        super().__init__(message)
        self.detail = ErrorDetail(
            code=type(self).__name__,
            message=message,
            field=field,
            value=None if value is None else str(value)[:200],
            remedy=remedy,
            hosts_considered=hosts_considered,
            filters=filters or [],
            attempts=attempts or [],
        )

    @property
    def remedy(self) -> str | None:
        """What the caller can do about it."""
        return self.detail.remedy

    def to_application_error(self) -> ApplicationError:
        """The form in which Temporal carries it."""
        return ApplicationError(
            self.detail.message,
            self.detail,
            type=self.detail.code,
            non_retryable=not self.retryable,
            category=ApplicationErrorCategory.BENIGN,
        )


class InvalidRequest(HostlerError):
    """The request can never succeed as it is."""


class NotFound(HostlerError):
    """What the request names does not exist."""


class Conflict(HostlerError):
    """It exists already with other content, or is in use."""


class QuotaExceeded(HostlerError):
    """The project's quota does not allow it."""


class InvalidState(HostlerError):
    """The server's state does not allow the operation."""


class ServerBusy(HostlerError):
    """Another operation runs on the server."""


class NoValidHost(HostlerError):
    """No host is left that could take the server; the detail tells why, host by host and filter by filter."""


class BuildFailed(HostlerError):
    """The boot gave up; the detail tells what each attempted host said."""


class OperationFailed(HostlerError):
    """An operation gave up for the reason it states."""


class Preempted(HostlerError):
    """A delete took the server over while the operation ran."""


class Cancelled(HostlerError):
    """Somebody cancelled the operation; what it had done was undone."""


class RescheduleError(HostlerError):
    """This host cannot do it, for a reason that another host may not share."""


class ImageRejected(HostlerError):
    """The image's content is not what was declared, or is unsafe to open."""


class DecryptionFailed(HostlerError):
    """What was encrypted cannot be read here: its key is missing, or it was changed since."""


class Unavailable(HostlerError):
    """A service that is needed does not answer."""

    retryable: ClassVar[bool] = True


ERRORS: dict[str, type[HostlerError]] = {
    cls.__name__: cls
    for cls in (
        InvalidRequest,
        NotFound,
        Conflict,
        QuotaExceeded,
        InvalidState,
        ServerBusy,
        NoValidHost,
        BuildFailed,
        OperationFailed,
        Preempted,
        Cancelled,
        RescheduleError,
        ImageRejected,
        DecryptionFailed,
        Unavailable,
    )
}


def from_detail(detail: ErrorDetail) -> HostlerError:
    """The typed error that a detail describes."""
    error = ERRORS.get(detail.code, OperationFailed)(detail.message)
    error.detail = detail
    return error


def from_application_error(error: ApplicationError) -> HostlerError | None:
    """The typed error that `error` carries, or None when it is not one of ours."""
    if error.type not in ERRORS:
        return None
    detail = next(iter(error.details), None)
    if isinstance(detail, dict):
        detail = ErrorDetail.model_validate(detail)
    if not isinstance(detail, ErrorDetail):
        detail = ErrorDetail(code=error.type, message=error.message)
    return from_detail(detail)
