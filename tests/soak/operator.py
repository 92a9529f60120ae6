"""The operator of the soak: decides about the operations that hold, so that each ends as it was asked for."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from hostler import Client
from hostler.contract.errors import Conflict, InvalidRequest, InvalidState, NotFound, Unavailable
from hostler.contract.servers import Choice, RunningOperation
from tests.soak.journal import Journal

PAUSE_S = 0.5
MOVES = 0.3
ME = "the operator"


@dataclass
class Operator:
    """Nobody else's hands: what a step needs again is only that the processes that were killed are back."""

    client: Client
    journal: Journal
    rng: random.Random
    decisions: Counter[str] = field(default_factory=Counter)

    async def work(self) -> None:
        """Look at what holds, and let it go on, for ever."""
        while True:
            with suppress(Unavailable):
                for operation in await self.client.operations.list(held=True):
                    await self.decide(operation)
            await asyncio.sleep(PAUSE_S)

    async def decide(self, operation: RunningOperation) -> None:
        """Once more, there or elsewhere; it may have gone on meanwhile."""
        choices = operation.hold.choices if operation.hold else [Choice.RETRY]
        decide = self.client.operations.retry
        if Choice.MOVE in choices and self.rng.random() < MOVES:
            decide = self.client.operations.move
        with suppress(InvalidState, InvalidRequest, NotFound, Conflict):
            decided = await decide(operation.server_id, by=ME)
            self.decisions[f"{decided.operation} at {decided.step}: {decided.choice}"] += 1
            self.journal.note("decide", operation.server_id, f"{decided.choice} at {decided.step}")
