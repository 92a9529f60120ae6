"""Directories that processes of other users, QEMU's and dnsmasq's, must get through."""

from pathlib import Path


def make_traversable(directory: Path) -> None:
    """Make the directory, and what is missing above it, open to all whatever the umask is."""
    for path in [*reversed(directory.parents), directory]:
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
    directory.chmod(0o755)


def first_closed(directory: Path) -> Path | None:
    """The uppermost directory on the way that other users cannot get through."""
    return next((path for path in reversed(directory.parents) if not path.stat().st_mode & 0o001), None)
