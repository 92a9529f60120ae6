"""Files with holes: what they take is less than their length."""

from pathlib import Path

STAT_BLOCK_BYTES = 512


def stored_bytes(file: Path) -> int:
    """What a file takes where it is: its holes take nothing, and what is set aside behind its end does not count."""
    status = file.stat()
    return min(status.st_size, status.st_blocks * STAT_BLOCK_BYTES)
