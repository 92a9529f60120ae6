"""Who this host is: a UUID, made when its worker first starts, kept in its state directory, untouched by a new name.

Two machines with one UUID, one of which has a copy of the other's state directory, would take each other's steps. So
a machine that has not been this host before asks the control plane, which knows hosts by their machines, too.
"""

import hashlib
import hmac
import os
import tempfile
from pathlib import Path
from uuid import uuid4

from drivers.durable import write_text
from hostler.contract.errors import Conflict
from hostler.contract.names import is_uuid

FILE = "host_id"
ADMITTED = "admitted"
"""Says as what and on which machine the control plane has let this host serve."""
MACHINE_ID = Path("/etc/machine-id")
APPLICATION = b"hostler"


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


def machine_id(file: Path = MACHINE_ID) -> str | None:
    """This installation of the operating system, or None where it has no ID.

    A hash, since machine-id(5) asks to keep the ID itself to the machine.
    """
    try:
        own = file.read_text().strip()
    except OSError:
        return None
    return hmac.new(own.encode(), APPLICATION, hashlib.sha256).hexdigest()[:32] if own else None


def was_admitted(directory: Path, host: str, machine: str) -> bool:
    """Whether this machine is known to be this host."""
    try:
        return (directory / ADMITTED).read_text().split() == [host, machine]
    except FileNotFoundError:
        return False


def note_admission(directory: Path, host: str, machine: str) -> None:
    """Remember that it is, so that the next start need not ask."""
    write_text(directory / ADMITTED, f"{host} {machine}\n")


def forget_admission(directory: Path) -> None:
    """Have the next start ask."""
    (directory / ADMITTED).unlink(missing_ok=True)
