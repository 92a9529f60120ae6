"""The SHA-256 of large files, a piece at a time, so that the caller is told and can be cancelled meanwhile."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from drivers.blocking import BlockingCalls

READ_BYTES = 1 << 20
READS_PER_CALL = 64


async def checksum(file: Path, blocking: BlockingCalls, progress: Callable[[int], None]) -> str:
    """The file's SHA-256, hexadecimal. `progress` hears how many bytes of it are done."""
    digest = hashlib.sha256()

    def some(opened: BinaryIO) -> bool:
        for _ in range(READS_PER_CALL):
            piece = opened.read(READ_BYTES)
            digest.update(piece)
            if not piece:
                return False
        return True

    opened = await blocking.run(file.open, "rb")
    try:
        while await blocking.run(some, opened):
            progress(opened.tell())
    finally:
        opened.close()
    return digest.hexdigest()
