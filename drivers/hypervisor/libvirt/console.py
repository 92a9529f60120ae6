"""Reads the end of a console log. virtlogd splits it: console.log is the newest part, then come .0, .1, ..."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hostler.contract.errors import NotFound, OperationFailed


def read_end(log: Path, max_bytes: int) -> str:
    """The last `max_bytes` of the log; what is not UTF-8 is replaced.

    Raises:
        NotFound: there is no log, since there is no guest.
        OperationFailed: this process may not read it.
    """
    end = b""
    try:
        if not log.exists():
            raise NotFound("the server has no guest on this host, so it has no console log")
        for part in _newest_first(log):
            if len(end) >= max_bytes:
                break
            end = _end_of(part, max_bytes - len(end)) + end
    except PermissionError as error:
        raise OperationFailed(
            f"the console log {error.filename} belongs to root", remedy="run the host worker as root"
        ) from error
    return end.decode(errors="replace")


def _newest_first(log: Path) -> Iterator[Path]:
    yield log
    for number in count():
        part = log.with_name(f"{log.name}.{number}")
        if not part.exists():
            return
        yield part


def _end_of(part: Path, max_bytes: int) -> bytes:
    with part.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - max_bytes))
        return file.read(max_bytes)
