"""Fills a volume's file with an image's content."""

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from drivers.environment import clean
from drivers.volume.base import Report
from hostler.contract.errors import RescheduleError
from hostler.contract.resources import DiskFormat

CHUNK_BYTES = 4096
PROGRESS = re.compile(rb"\((\d+)\.\d+/100%\)")


async def to_raw(source: Path, source_format: DiskFormat, target: Path, report: Report) -> None:
    """Write an image, whose format was inspected, into the file `target`: all zeros so far, and as large or larger.

    The converter is killed when the caller is cancelled.

    Raises:
        RescheduleError: it cannot be done here.
    """
    # The target exists, so -n; knowing that it is all zeros, the converter leaves its holes alone.
    command = ["qemu-img", "convert", "-p", "-n", "--target-is-zero", "-f", source_format, "-O", "raw"]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, str(source), str(target), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=clean()
        )
    except FileNotFoundError as error:
        raise RescheduleError(
            "qemu-img is not installed on this host", remedy="install the package qemu-utils"
        ) from error
    try:
        _, complaint = await asyncio.gather(_follow(process, report), _read_all(process))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status:
        raise RescheduleError(f"qemu-img could not convert {source.name}: {complaint.decode(errors='replace').strip()}")


async def _follow(process: Process, report: Report) -> None:
    """Report each whole percent that the converter tells of."""
    assert process.stdout is not None
    last = b""
    while output := await process.stdout.read(CHUNK_BYTES):
        percents = PROGRESS.findall(output)
        if percents and percents[-1] != last:
            last = percents[-1]
            report(f"{last.decode()} % converted")


async def _read_all(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
