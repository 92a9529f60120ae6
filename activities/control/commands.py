"""Runs a command of the operator's. No shell sees it, and it sees no secret of ours."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity

from hostler.contract.errors import InvalidRequest, Unavailable

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""Of our own environment, which has the database's URL and the encryption keys."""
BEAT_S = 2.0
SHOWN = 300


@dataclass(frozen=True)
class OperatorsCommand:
    """A program with its arguments, as the `setting` has it; `title` and `remedy` are for when it fails."""

    words: Sequence[str]
    timeout: timedelta
    setting: str
    title: str
    remedy: str

    async def run(self, arguments: Sequence[str], told: Mapping[str, str], doing: str) -> str:
        """Run it with these arguments added, and `told` in its environment; the end of what it says, in one line.

        Raises:
            InvalidRequest: it cannot be run. Unavailable: it failed, or took too long.
        """
        process = await self._begin(arguments, told)
        beating = asyncio.create_task(_beat(doing))
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                output, _ = await process.communicate()
        except TimeoutError:
            raise self._failed(f"has not ended within {self.timeout.total_seconds():g} s", "") from None
        finally:
            beating.cancel()
            await _end(process)
        said = " ".join(output.decode(errors="replace").split())[-SHOWN:]
        if process.returncode:
            raise self._failed(f"ended with status {process.returncode}", said)
        return said

    async def _begin(self, arguments: Sequence[str], told: Mapping[str, str]) -> Process:
        environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        try:
            return await asyncio.create_subprocess_exec(
                *(*self.words, *arguments),
                env={**environment, **told},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InvalidRequest(
                f"{self.title} cannot be run: {error.strerror}",
                field=self.setting,
                value=self.words[0],
                remedy="set it to a program that is there on every control worker",
            ) from error

    def _failed(self, what: str, said: str) -> Unavailable:
        return Unavailable(
            f"{self.title} {what}" + (f": {said}" if said else ""), field=self.setting, remedy=self.remedy
        )


async def _beat(doing: str) -> None:
    while True:
        activity.heartbeat(doing)
        await asyncio.sleep(BEAT_S)


async def _end(process: Process) -> None:
    """End it if it still runs, and all that it has started, also if that outlived it: the next try must not meet it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
