"""Runs what takes qemu-img long: its progress is told, and it outlives neither the call nor the process that wanted it.

One that did could still write into a disk that another try has finished, and that a guest runs on.
"""

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from drivers.environment import clean
from hostler.contract.errors import RescheduleError

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
NOT_FOUND = 127  # as shells have it, and setpriv
STALLED = timedelta(minutes=10)
"""A disk or a store that does not move for this long hangs."""
SLOWEST = 4 << 20
"""Bytes a second. qemu-img tells whole percents: one of a large disk may take longer than that."""
PROGRESS = re.compile(rb"\((\d+)\.\d+/100%\)")
END_OF_PROGRESS = b"\r"


async def convert(*arguments: str, progress: Callable[[int], None], silence: timedelta | None = None) -> str:
    """Run `qemu-img convert`; what it complains of, empty when it is done. `progress` hears each whole percent.

    It is killed when the caller is cancelled, and when it makes no progress for as long as `silence`.

    Raises:
        RescheduleError: there is no qemu-img.
    """
    return await _run("convert", *arguments, progress=progress, silence=silence)


def patience(size: int) -> timedelta:
    """For how long what works on a disk of `size` bytes may tell of no progress before it counts as hung."""
    return max(STALLED, timedelta(seconds=size / 100 / SLOWEST))


async def flatten(overlay: Path, size: int, progress: Callable[[int], None]) -> str:
    """Make a qcow2 overlay, whose guest sees `size` bytes, take in all of its backing file; see `convert`.

    What is killed can be done again: only at the end does the overlay forget its backing file.
    """
    return await _run("rebase", "-f", "qcow2", "-b", "", str(overlay), progress=progress, silence=patience(size))


async def _run(command: str, *arguments: str, progress: Callable[[int], None], silence: timedelta | None) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *DIES_WITH_US, "qemu-img", command, "-p", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=clean()
        )
    except FileNotFoundError as error:
        raise RescheduleError(
            "setpriv is not installed on this host", remedy="install the package util-linux"
        ) from error
    try:
        alive, complaint = await asyncio.gather(_follow(process, progress, silence), _read_all(process))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not status:
        return ""
    if status == NOT_FOUND:
        raise RescheduleError("qemu-img is not installed on this host", remedy="install the package qemu-utils")
    if not alive:
        return f"no progress within {silence}"
    return complaint.decode(errors="replace").strip().removeprefix("qemu-img: ") or f"exit code {status}"


async def _follow(process: Process, progress: Callable[[int], None], silence: timedelta | None) -> bool:
    """Tell of the progress until the end; False when there was none, and it was killed."""
    assert process.stdout is not None
    last = None
    try:
        while True:
            async with asyncio.timeout(silence.total_seconds() if silence else None):
                output = await process.stdout.readuntil(END_OF_PROGRESS)
            percent = PROGRESS.search(output)
            if percent and percent[1] != last:
                last = percent[1]
                progress(int(last))
    except asyncio.IncompleteReadError:  # that was all
        return True
    except TimeoutError:
        process.kill()
        return False


async def _read_all(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
