"""A host's UUID: made when its worker first starts, kept in its state directory, untouched when it is renamed."""

import os
import tempfile
from pathlib import Path
from uuid import uuid4

from hostler.contract.errors import Conflict
from hostler.contract.names import is_uuid

FILE = "host_id"


def host_id(directory: Path) -> str:
    """The UUID of the host whose state is in `directory`, made now if it has none yet.

    Raises:
        Conflict: the file holds something else than a UUID. It is left alone: a new UUID would make this another
            host, and orphan every server that it runs.
    """
    path = directory / FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _create(path, str(uuid4()))
    value = path.read_text(errors="replace").strip()
    if not is_uuid(value):
        raise Conflict(
            f"{path} should hold this host's UUID, but holds {value[:60]!r}",
            value=value,
            remedy=f"write the host's UUID, as `hostler host list` shows it, into {path}; "
            "remove the file only if this host has never run a server",
        )
    return value


def _create(path: Path, value: str) -> None:
    """Write a new file whole or not at all; when another process is faster, its value stays."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    new = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{value}\n")
            file.flush()
            os.fsync(file.fileno())  # an identity lost to a power cut would orphan the servers
        new.chmod(0o644)
        path.hardlink_to(new)
    except FileExistsError:
        pass
    finally:
        new.unlink()
