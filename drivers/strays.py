"""Files in a driver's directory that belong to nothing there: to be reported, for no driver removes them by itself."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

SETTLED = timedelta(hours=1)
"""What was written to since may be something that is being made."""


def strays(directory: Path, belongs: Callable[[Path], bool]) -> list[str]:
    """The paths in `directory` that do not belong there and that nobody has written to for a while."""
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    return [str(path) for path in found if not belongs(path) and _settled(path)]


def _settled(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > SETTLED.total_seconds()
    return False
