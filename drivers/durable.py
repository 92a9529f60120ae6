"""Files that a power cut leaves as they were before or as they shall be, never in between."""

import os
from pathlib import Path


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Write a small file in one step. One writer at a time. Without `sync` it may be lost to a power cut."""
    part = path.with_name(f".{path.name}.new")
    try:
        with part.open("w") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if sync:
            put_in_place(part, path)
        else:
            part.rename(path)
    except OSError:  # a full disk shall not keep what was begun, too
        part.unlink(missing_ok=True)
        raise


def put_in_place(part: Path, final: Path) -> None:
    """Give a finished file, whose content is on the disk already, its name."""
    part.rename(final)
    handle = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
