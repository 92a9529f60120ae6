"""What is allowed in the requests of operations, beyond what all requests have; `hostler.contract.validation` calls it.

One function a kind of request, found by its type. Secrets are never shown: their errors tell the length.
"""

import base64
import binascii
from datetime import timedelta
from functools import singledispatch

from hostler.contract.checks import check_number, check_optional_text, check_text, check_uuid, reject
from hostler.contract.servers import (
    NEVER,
    BackupRequest,
    EvacuateRequest,
    LiveMigrateRequest,
    MigrateRequest,
    MoveRequest,
    OperationRequest,
    RebootRequest,
    RebuildRequest,
    ResizeRequest,
    ShelveRequest,
    SnapshotRequest,
    StopRequest,
    UnshelveRequest,
)

MAX_USER_DATA = 65_535  # characters of base64, as in Nova: 48 KiB of content
MAX_PASSWORD = 255
MAX_ATTEMPTS = 100
MAX_STOP_TIMEOUT = timedelta(days=1)
# Nova has no limit. What is to wait for longer than a year will hardly be remembered by whoever asked for it.
MAX_DELAY = timedelta(days=365)


@singledispatch
def check_options(request: OperationRequest) -> None:
    """What this kind of request has; a start, a delete, a confirmation have nothing."""


@check_options.register(StopRequest)
@check_options.register(RebootRequest)
def _timeout(request: StopRequest | RebootRequest) -> None:
    check_duration("timeout", request.timeout, MAX_STOP_TIMEOUT, "0 to force it")


@check_options.register
def _snapshot(request: SnapshotRequest) -> None:
    check_uuid("image_id", request.image_id)
    check_text("name", request.name)


@check_options.register
def _backup(request: BackupRequest) -> None:
    _snapshot(request)
    check_text("backup_type", request.backup_type)
    check_number("rotation", request.rotation, minimum=0)


@check_options.register
def _rebuild(request: RebuildRequest) -> None:
    check_optional_text("image", request.image)
    check_optional_text("key_name", request.key_name or None)  # an empty one takes the key away
    check_user_data(request.user_data)
    check_password(request.admin_password)


@check_options.register
def _shelve(request: ShelveRequest) -> None:
    if request.offload_after != NEVER:
        check_duration("offload_after", request.offload_after, MAX_DELAY, "0 to offload it at once, -1 for never")


@check_options.register
def _unshelve(request: UnshelveRequest) -> None:
    check_optional_text("availability_zone", request.availability_zone)
    check_optional_text("host", request.host)
    check_attempts(request.max_attempts)


@check_options.register
def _move(request: MoveRequest) -> None:
    check_attempts(request.max_attempts)
    check_duration("confirm_after", request.confirm_after, MAX_DELAY, "0 to have it never confirm itself")


@check_options.register
def _resize(request: ResizeRequest) -> None:
    check_text("flavor", request.flavor)
    _move(request)


@check_options.register
def _migrate(request: MigrateRequest) -> None:
    check_optional_text("host", request.host)
    _move(request)


@check_options.register
def _live_migrate(request: LiveMigrateRequest) -> None:
    check_optional_text("host", request.host)
    check_attempts(request.max_attempts)
    check_duration("completion_timeout", request.completion_timeout, MAX_DELAY, "0 for no limit")


@check_options.register
def _evacuate(request: EvacuateRequest) -> None:
    check_optional_text("host", request.host)
    check_attempts(request.max_attempts)


def check_attempts(max_attempts: int | None) -> None:
    """On how many hosts to try; None is the control worker's setting."""
    if max_attempts is not None:
        check_number("max_attempts", max_attempts, minimum=1, maximum=MAX_ATTEMPTS)


def check_duration(field: str, value: timedelta | None, maximum: timedelta, zero: str) -> None:
    """None, or from 0 to `maximum`. `zero` tells what 0 is for."""
    if value is not None and not timedelta(0) <= value <= maximum:
        reject(field, value, f"must be from 0 to {maximum}", f"give a time in that range, {zero}")


def check_user_data(user_data: str | None) -> None:
    """None, or base64 of at most `MAX_USER_DATA` characters. Its content is secret: no error shows it."""
    if user_data is None:
        return
    if len(user_data) > MAX_USER_DATA:
        reject(
            "user_data",
            f"{len(user_data)} characters",
            f"is longer than {MAX_USER_DATA} characters of base64",
            "let the guest fetch the rest from a server of yours",
        )
    try:
        base64.b64decode(user_data, validate=True)
    except (binascii.Error, ValueError):
        reject("user_data", f"{len(user_data)} characters", "is not base64", "encode it, as `base64 -w0 FILE` does")


def check_config_drive(
    config_drive: bool, *, key_name: str | None, user_data: str | None, admin_password: str | None = None
) -> None:
    """What a guest learns from its config drive alone is given to none that has none; an empty one takes something
    away. Secrets are not shown.
    """
    for field, value in {"key_name": key_name, "user_data": user_data, "admin_password": admin_password}.items():
        if value and not config_drive:
            reject(
                field,
                value if field == "key_name" else f"{len(value)} characters",
                "would not reach the guest, which has no config drive",
                "leave it out, or boot a server with a config drive",
            )


def check_password(password: str | None) -> None:
    """None, or 1 to `MAX_PASSWORD` printable characters. It is secret: no error shows it."""
    if password is None:
        return
    length = f"{len(password)} characters"
    if not 1 <= len(password) <= MAX_PASSWORD:
        reject("admin_password", length, f"must have 1 to {MAX_PASSWORD} characters", "choose another one")
    if not password.isprintable():
        reject("admin_password", length, "has characters that cannot be printed", "use printable ones, on one line")
