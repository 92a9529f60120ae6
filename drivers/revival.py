"""Has daemons that die started again at once: the kernel makes a process's descriptor readable when it ends."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

logger = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=1), timedelta(seconds=60)
STEADY = timedelta(seconds=60)
"""Who has lived this long is started again without delay; others later each time."""

Revive = Callable[[str], Awaitable[None]]
"""Starts what is known by this key again, if it is still wanted, and watches it again."""


@dataclass
class _Watched:
    handle: int
    since: float
    delay: timedelta


class Revival:
    """Watches daemons by key. All methods are for the event loop's thread."""

    def __init__(self, what: str, revive: Revive) -> None:
        """`what` they are, for the log. `revive` may fail: it is tried again, later each time."""
        self._what = what
        self._revive = revive
        self._watched: dict[str, _Watched] = {}
        self._delays: dict[str, timedelta] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def watch(self, key: str, handle: int | None) -> None:
        """Watch the process of this descriptor (`os.pidfd_open`), and close it afterwards; None is a dead one."""
        self._drop(key)
        if self._closed:
            if handle is not None:
                os.close(handle)
            return
        delay = self._delays.get(key, timedelta(0))
        if handle is None:
            if self._tasks.get(key) in (None, asyncio.current_task()):  # else it is being started again already
                self._begin(key, max(delay, FIRST_DELAY))
            return
        self._watched[key] = _Watched(handle, time.monotonic(), delay)
        asyncio.get_running_loop().add_reader(handle, self._died, key)

    def pause(self, key: str) -> None:
        """Do not watch it until the next `watch`: it may be replaced."""
        self._drop(key)

    def forget(self, key: str) -> None:
        """It is not wanted any more."""
        self._drop(key)
        self._delays.pop(key, None)
        task = self._tasks.get(key)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def close(self) -> None:
        """Watch nobody any more."""
        self._closed = True
        for key in [*self._watched, *self._tasks]:
            self.forget(key)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _died(self, key: str) -> None:
        watched = self._watched[key]
        steady = time.monotonic() - watched.since > STEADY.total_seconds()
        self._drop(key)
        logger.warning("%s %s has died: starting it again", self._what, key)
        self._begin(key, timedelta(0) if steady else watched.delay)

    def _begin(self, key: str, delay: timedelta) -> None:
        self._delays[key] = min(max(2 * delay, FIRST_DELAY), LONGEST_DELAY)
        task = self._tasks[key] = asyncio.create_task(self._run(key, delay))
        task.add_done_callback(lambda done: self._tasks.pop(key) if self._tasks.get(key) is done else None)

    async def _run(self, key: str, delay: timedelta) -> None:
        await asyncio.sleep(delay.total_seconds())
        try:
            await self._revive(key)
        except Exception as error:
            logger.error("%s %s does not start again: %s", self._what, key, error)
            self.watch(key, None)

    def _drop(self, key: str) -> None:
        watched = self._watched.pop(key, None)
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched.handle)
            os.close(watched.handle)
