"""Files that hold secrets: read only when nobody else can read them, written so that nobody else ever could."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hostler.contract.errors import InvalidRequest

PRIVATE = 0o600
_OTHERS = stat.S_IRWXO | stat.S_IWGRP


def read_private(path: Path, field: str) -> str:
    """The content of a file that `field` of the settings names. Its group may read it; others may not.

    Raises:
        InvalidRequest: it is not there, may not be read, or is open to others.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _OTHERS:
                raise InvalidRequest(
                    f"{path} holds secrets, and others than its owner and its group can use it (mode {mode:04o})",
                    field=field,
                    value=path,
                    remedy=f"chmod 600 {path}, and replace the secrets if somebody may have read them",
                )
            return file.read()
    except FileNotFoundError:
        remedy = "put it there, or correct the setting"
        raise InvalidRequest(f"there is no file {path}", field=field, value=path, remedy=remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidRequest(
            f"{path} cannot be read: {reason}",
            field=field,
            value=path,
            remedy="run this as a user who may read it, or let the setting name another file",
        ) from None


def write_private(path: Path, content: str) -> None:
    """Write a file whole or not at all. One that was there keeps its owner and mode, a new one is its owner's alone.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    new = Path(name)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            former = path.stat()
            os.chown(new, former.st_uid, former.st_gid)
            new.chmod(stat.S_IMODE(former.st_mode))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def named_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines `<name>:<secret>` of a text, with their numbers; empty ones and comments (#) are left out."""
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if content and not content.startswith("#"):
            name, _, secret = content.partition(":")
            yield number, name.strip(), secret.strip()
