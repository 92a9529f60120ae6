"""Kills processes at random, and keeps them running otherwise: a supervisor with a bad temper."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.processes.process import Process
from tests.soak.journal import Journal

EVERY_S = (1.0, 5.0)
"""How long after a kill the next one comes."""
DOWN_S = (0.0, 3.0)
"""How long a killed process stays dead."""
LOOK_S = 0.1


@dataclass
class Chaos:
    """Supervisor and killer of the processes; `kills` counts by name, `deaths` those who ended by themselves."""

    processes: Sequence[Process]
    rng: random.Random
    journal: Journal
    kills: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    _down_until: dict[str, float] = field(default_factory=dict)

    async def supervise(self) -> None:
        """Start again who is down, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            for process in self.processes:
                if process.running:
                    continue
                due = self._down_until.get(process.name)
                if due is None:
                    self.deaths[process.name] += 1
                    self.journal.note("death", process.name, "it ended by itself")
                    self._down_until[process.name] = loop.time() + 0.5
                elif loop.time() >= due:
                    process.start()
                    del self._down_until[process.name]
            await asyncio.sleep(LOOK_S)

    async def rage(self) -> None:
        """Kill one after the other, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.rng.uniform(*EVERY_S))
            victim = self.rng.choice(self.processes)
            if victim.running:
                down = self.rng.uniform(*DOWN_S)
                self._down_until[victim.name] = loop.time() + down
                self.kills[victim.name] += 1
                self.journal.note("kill", victim.name, f"pid {victim.pid}, for {down:.1f} s")
                victim.kill()
