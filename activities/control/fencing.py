"""Runs the operator's command that makes sure that a host is off. No shell sees it, and it sees no secret of ours."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from temporalio import activity

from hostler.contract.errors import InvalidRequest, Unavailable

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""Of our own environment, which has the database's URL and the encryption keys."""
BEAT_S = 2.0
SHOWN = 300


async def fence(command: Sequence[str], timeout: timedelta, name: str, host_id: str) -> None:
    """Run the command with the host's name and UUID, as its last arguments and in its environment.

    Raises:
        InvalidRequest: it cannot be run. Unavailable: it failed, or took too long.
    """
    environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    environment |= {"HOSTLER_HOST_NAME": name, "HOSTLER_HOST_ID": host_id}
    try:
        process = await asyncio.create_subprocess_exec(
            *(*command, name, host_id),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise InvalidRequest(
            f"the fence command cannot be run: {error.strerror}",
            field="host_failure.fence_command",
            value=command[0],
            remedy="set it to a program that is there on every control worker",
        ) from error
    beating = asyncio.create_task(_beat(name))
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            output, _ = await process.communicate()
    except TimeoutError:
        raise _failed(name, f"has not ended within {timeout.total_seconds():g} s", "") from None
    finally:
        beating.cancel()
        await _end(process)
    if process.returncode:
        raise _failed(name, f"ended with status {process.returncode}", output.decode(errors="replace"))


async def _beat(name: str) -> None:
    while True:
        activity.heartbeat(f"fences {name}")
        await asyncio.sleep(BEAT_S)


async def _end(process: Process) -> None:
    """End it if it still runs, and all that it has started, also if that outlived it: the next try must not meet it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _failed(name: str, what: str, output: str) -> Unavailable:
    said = " ".join(output.split())[-SHOWN:]
    return Unavailable(
        f"the fence command for host {name} {what}" + (f": {said}" if said else ""),
        field="host_failure.fence_command",
        remedy="see why; it is not known whether the host is off. Once it surely is: "
        f"hostler host evacuate {name} --force",
    )
