"""Tells the control plane the power states of a host's guests that change by themselves.

What is sent is the state at that moment, never a change, so nothing depends on what was sent before, or twice. It is
sent again until it is answered, as it is by then. A server that an operation holds is left to it, and sent afterwards.
Where it is news, the guest is looked at once more, with the version of the server's row in hand: an operation that came
and went while the first report was on its way has changed that.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from uuid import uuid4

from temporalio.client import ActivityFailureError, Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from drivers.hypervisor.base import HypervisorDriver
from hostler.contract.calls import REPORT_POWER_STATES, GuestPower, PowerReceipt, PowerReport
from hostler.contract.errors import HostlerError
from hostler.contract.names import CONTROL_QUEUE
from hostler.contract.states import PowerState

logger = logging.getLogger(__name__)

ANSWER = timedelta(seconds=20)
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
AT_ONCE = 200
"""Guests in one report."""


async def forward_power(client: Client, host_id: str, hypervisor: HypervisorDriver) -> None:
    """Report as long as the driver has news."""
    forwarder = _Forwarder(client, host_id, hypervisor)
    sending = asyncio.create_task(forwarder.send())
    try:
        async for changed in hypervisor.power_changes():
            forwarder.add(changed)
    finally:
        sending.cancel()


class _Forwarder:
    def __init__(self, client: Client, host_id: str, hypervisor: HypervisorDriver) -> None:
        self._client = client
        self._host_id = host_id
        self._hypervisor = hypervisor
        self._pending: dict[str, None] = {}  # in the order of their turns
        self._news = asyncio.Event()

    def add(self, server_ids: Iterable[str]) -> None:
        """These have news."""
        self._pending.update(dict.fromkeys(server_ids))
        self._news.set()

    async def send(self) -> None:
        """Send what is pending, one report at a time, so that each server's are in order."""
        pause = FIRST_PAUSE
        while True:
            if not self._pending:
                await self._news.wait()
                pause = FIRST_PAUSE
            self._news.clear()
            if not await self._sent(list(islice(self._pending, AT_ONCE))):
                await self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _sent(self, server_ids: list[str]) -> bool:
        """Send these; False when some must be sent again."""
        try:
            states = await self._states(server_ids)
            receipt = await self._report(states, {})
            busy = set(receipt.busy)
            if receipt.doubted:
                states |= await self._states(receipt.doubted)
                doubted = {server_id: states[server_id] for server_id in receipt.doubted}
                second = await self._report(doubted, receipt.doubted)
                busy |= {*second.busy, *second.doubted}
            now = await self._states(server_ids)
        except (RPCError, ActivityFailureError, HostlerError) as error:
            logger.warning("power states are not passed on yet: %s", getattr(error, "cause", None) or error)
            return False
        # A state that a call of ours changed meanwhile is no news, but what was sent is no longer true.
        again = [one for one in server_ids if one in busy or now[one] is not states[one]]
        for server_id in server_ids:
            self._pending.pop(server_id)
        self._pending.update(dict.fromkeys(again))
        return not again

    async def _report(self, states: dict[str, PowerState], versions: dict[str, str]) -> PowerReceipt:
        """Report; `versions` are those of the servers' rows, where they were known before the guests were looked at."""
        guests = [
            GuestPower(server_id=server_id, power_state=state, version=versions.get(server_id))
            for server_id, state in states.items()
        ]
        receipt: PowerReceipt = await self._client.execute_activity(
            REPORT_POWER_STATES.name,
            PowerReport(host_id=self._host_id, guests=guests, confirms=True),
            id=f"{REPORT_POWER_STATES.name}:{uuid4()}",
            task_queue=CONTROL_QUEUE,
            result_type=PowerReceipt,
            start_to_close_timeout=ANSWER,
            schedule_to_close_timeout=ANSWER,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=2)),
            summary="power states",
        )
        return receipt

    async def _states(self, server_ids: Iterable[str]) -> dict[str, PowerState]:
        return {server_id: await self._hypervisor.power_state(server_id) for server_id in server_ids}

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
