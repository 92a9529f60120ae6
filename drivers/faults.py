"""Injected latency and faults: what each simulated driver goes through before it obeys a call."""

import asyncio
import os
from collections import Counter
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from drivers.hypervisor.base import Report
from hostler.contract.errors import RescheduleError
from hostler.settings import SimulatedFault, SimulatedSettings

KILLED = 137
"""The exit status of a process that a "kill" fault ended: that of SIGKILL in a shell."""


class SimulatedFaults:
    """The faults and latencies of one host.

    Strikes are recorded in `<directory>/faults.log`, one fault a line, before they take effect, so that a fault with
    `times` 1 does not strike again after it has killed the process. A fault's `host` may be a pattern ("sim-*").
    The same fault given twice is one fault; drivers of a host may share the directory, since their calls differ.
    """

    def __init__(self, settings: SimulatedSettings, host: str, directory: Path) -> None:
        self._latency = {call: value.total_seconds() for call, value in settings.latency.items()}
        self._faults: dict[str, list[SimulatedFault]] = {}
        for fault in settings.faults:
            if fnmatchcase(host, fault.host):
                self._faults.setdefault(fault.call, []).append(fault)
        self._record = directory / "faults.log"
        self._struck = Counter(self._record.read_text().splitlines() if self._record.exists() else [])

    async def before(self, call: str, report: Report | None = None, hastened: asyncio.Event | None = None) -> None:
        """Take the time that `call` takes, unless it is `hastened`, then let the next fault that is due strike.

        Raises:
            RescheduleError: a "reschedule" fault struck.
            RuntimeError: an "error" fault struck.
        """
        if seconds := self._latency.get(call, self._latency.get("*", 0.0)):
            await _sleep(seconds, report, hastened or asyncio.Event())
        for fault in self._faults.get(call, ()):
            if fault.times < 0 or self._struck[fault.model_dump_json()] < fault.times:
                await self._strike(fault)

    async def _strike(self, fault: SimulatedFault) -> NoReturn:
        line = fault.model_dump_json()
        self._struck[line] += 1
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with self._record.open("a") as record:
            record.write(f"{line}\n")
        match fault.kind:
            case "reschedule":
                raise RescheduleError(fault.message)
            case "error":
                raise RuntimeError(fault.message)
            case "kill":
                os._exit(KILLED)
            case "hang":
                await asyncio.Event().wait()  # only a cancellation ends it
                raise AssertionError("nobody sets this event")


async def _sleep(seconds: float, report: Report | None, hastened: asyncio.Event) -> None:
    """Sleep until `hastened`, reporting about once a second, as a driver that moves data would."""
    for second in range(int(seconds) + 1):
        if report is not None and second < int(seconds):
            report(f"{second} of {seconds:g} simulated seconds")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(1, seconds - second)):
                await hastened.wait()
                return
