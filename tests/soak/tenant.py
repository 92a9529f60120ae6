"""A tenant: asks for one operation after the other, repeats what an outage swallowed, and keeps the model."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

from hostler import Client
from hostler.client import Operation
from hostler.contract.errors import (
    BuildFailed,
    Cancelled,
    HostlerError,
    NotFound,
    NoValidHost,
    OperationFailed,
    Preempted,
    Unavailable,
)
from hostler.contract.servers import BlockDeviceMapping, OnFailure, OperationName
from hostler.contract.states import VmState
from tests.cloud import DEMO, NET, TINY
from tests.soak.journal import Journal
from tests.soak.model import THERE, Expected, Model
from tests.soak.repertoire import Action, choose

T = TypeVar("T")

# What is no operation on a server does not hold: for these reasons it fails when processes die, and is asked for again.
EXCUSES = re.compile(r"does not answer|fell silent|took too long|no host that is up")
LIFE = (0, 4)
"""How many operations a server sees between its boot and its delete."""
CANCELS, PREEMPTS, REPEATS, VOLUMES, IMAGES = 0.08, 0.12, 0.15, 0.2, 0.04


@dataclass
class Tenant:
    """One of many; what it makes is its own."""

    name: str
    client: Client
    disk: Path
    model: Model
    journal: Journal
    rng: random.Random
    closing: asyncio.Event
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    doing: str = ""

    async def live(self) -> None:
        """Until `closing`. Some of what there is then is kept, to be compared."""
        while not self.closing.is_set():
            try:
                kind = self.rng.random()
                if kind < VOLUMES:
                    await self.volume()
                elif kind < VOLUMES + IMAGES:
                    await self.image()
                else:
                    await self.server()
            except HostlerError as error:
                self.journal.fault(self.name, f"{self.doing}: {type(error).__name__}: {error}")

    # Lives.

    async def server(self) -> None:
        """A server's life."""
        server_id = self.uuid()
        expected = self.model.servers[server_id] = Expected(networks=self.rng.randint(0, 1))
        await self.boot(server_id, expected)
        for _ in range(self.rng.randint(*LIFE)):
            if self.closing.is_set() or expected.state not in THERE:
                break
            await self.act(server_id, expected)
        keep = self.closing.is_set() and expected.state in THERE
        if expected.state is not VmState.DELETED and not keep:
            await self.delete(server_id, expected)

    async def boot(self, server_id: str, expected: Expected) -> None:
        devices = []
        if self.rng.random() < VOLUMES:
            blank = {"source_type": "blank", "destination_type": "volume", "volume_size": 1}
            devices.append(BlockDeviceMapping.model_validate(blank | {"delete_on_termination": True}))

        async def ask() -> Operation:
            networks = [NET] * expected.networks
            return await self.client.servers.boot(
                server_id[:8],
                flavor=TINY,
                image=DEMO,
                networks=networks,
                block_devices=devices,
                server_id=server_id,
                on_failure=OnFailure.HOLD,
            )

        ended = await self.conduct("boot", server_id, expected, ask)
        if expected.state is VmState.DELETED:
            return
        expected.state = VmState.ACTIVE if ended else VmState.ERROR
        if ended and devices:
            shown = await self.patiently(lambda: self.client.servers.show(server_id))
            expected.volumes = [device.volume_id for device in shown.devices if device.volume_id]

    async def act(self, server_id: str, expected: Expected) -> None:
        """Some operation that the server's state allows."""
        action = choose(self.rng, expected.state, larger=expected.larger)
        request_id = self.uuid()
        before = expected.state
        ended = await self.conduct(
            action.operation.value, server_id, expected, lambda: action.ask(self.client, server_id, request_id)
        )
        self.imaged(action, server_id, request_id, expected, ended)
        if expected.state is VmState.DELETED:
            return
        if ended:
            self.went(action, expected, before)
        expected.certain = ended

    def went(self, action: Action, expected: Expected, before: VmState) -> None:
        """The operation did as asked."""
        if action.moves:
            expected.former, expected.resizing = before, action.operation is OperationName.RESIZE
        if action.operation is OperationName.CONFIRM_RESIZE:
            expected.larger = expected.larger or expected.resizing
        if action.afterwards is not None:
            expected.state = action.afterwards
        elif before is VmState.RESIZED:
            expected.state = expected.former

    def imaged(self, action: Action, server_id: str, request_id: str, expected: Expected, ended: bool) -> None:
        """What has become of the image, where the operation makes one."""
        if action.operation not in (OperationName.SNAPSHOT, OperationName.BACKUP):
            return
        image_id = str(uuid5(NAMESPACE_URL, f"{server_id}/{request_id}/image"))
        backup = action.operation is OperationName.BACKUP
        former = set(expected.backups) if backup else set()
        if expected.state is VmState.DELETED:
            self.model.perhaps |= {image_id, *former}
        elif ended:
            self.model.images = (self.model.images - former) | {image_id}
            expected.backups = [image_id] if backup else expected.backups

    async def delete(self, server_id: str, expected: Expected) -> None:
        request_id = self.uuid()
        self.doing = f"delete {server_id}"

        async def ask() -> Operation:
            return await self.client.servers.delete(server_id, request_id=request_id, on_failure=OnFailure.HOLD)

        operation = await self.patiently(ask)
        deleted = await self.patiently(operation.result)
        self.tell("delete", server_id, "ended" if deleted.vm_state is VmState.DELETED else deleted.status)
        expected.state = VmState.DELETED

    async def volume(self) -> None:
        """A volume by itself: made, and removed again."""
        volume_id = self.uuid()
        self.doing = f"create-volume {volume_id}"
        if await self.catalogued("create-volume", volume_id, self._create_volume):
            self.model.volumes.add(volume_id)
            if not self.closing.is_set():
                self.doing = f"delete-volume {volume_id}"
                await self.catalogued("delete-volume", volume_id, self._delete_volume)
                self.model.volumes.discard(volume_id)

    async def image(self) -> None:
        """An image: imported, and removed again."""
        image_id = self.uuid()
        self.doing = f"create-image {image_id}"
        if await self.catalogued("create-image", image_id, self._create_image):
            self.model.images.add(image_id)
            if not self.closing.is_set():
                await self.catalogued("delete_image", image_id, self._delete_image)
                self.model.images.discard(image_id)

    async def _create_volume(self, volume_id: str) -> None:
        await self.client.volumes.create(size_gib=1, volume_id=volume_id)

    async def _delete_volume(self, volume_id: str) -> None:
        try:
            await self.client.volumes.delete(volume_id)
        except NotFound:  # the former call did it, and its answer was lost
            self.journal.note("repeat", volume_id, "it was deleted already")

    async def _create_image(self, image_id: str) -> None:
        await self.client.images.create(image_id[:8], self.disk, image_id=image_id)

    async def _delete_image(self, image_id: str) -> None:
        try:
            await self.client.images.delete(image_id)
        except NotFound:
            self.journal.note("repeat", image_id, "it was deleted already")

    # How things are asked for.

    async def conduct(
        self, name: str, server_id: str, expected: Expected, ask: Callable[[], Awaitable[Operation]]
    ) -> bool:
        """An operation to its end, sometimes asked for twice, cancelled or cut short; True when it did as asked."""
        self.doing = f"{name} {server_id}"
        self.journal.note("ask", server_id, f"{name} by {self.name}")
        operation = await self.patiently(ask)
        if self.rng.random() < REPEATS:
            again = await self.patiently(ask)
            if again.run_id != operation.run_id:
                self.journal.fault(server_id, f"{name}: asked again, run {again.run_id} is not {operation.run_id}")
        chance = self.rng.random()
        cancelled, preempted = chance < CANCELS, CANCELS <= chance < CANCELS + PREEMPTS
        if cancelled or preempted:
            await asyncio.sleep(self.rng.uniform(0, 1.5))
        if cancelled:
            await self.patiently(operation.cancel)
        if preempted:
            await self.delete(server_id, expected)
        try:
            await self.patiently(operation.result)
        except Preempted as error:
            return self._ended(name, server_id, error, preempted)
        except Cancelled as error:
            return self._ended(name, server_id, error, cancelled)
        except (BuildFailed, NoValidHost, OperationFailed) as error:
            reasons = [str(error), *(attempt.reason for attempt in error.detail.attempts)]
            return self._ended(name, server_id, error, False, "; ".join(reasons))
        self.tell(name, server_id, "ended")
        return True

    def _ended(self, name: str, server_id: str, error: HostlerError, excused: bool, reason: str = "") -> bool:
        self.tell(name, server_id, type(error).__name__, reason or str(error))
        if not excused:
            self.journal.fault(server_id, f"{name} ended with {type(error).__name__}: {reason or error}")
        return False

    async def catalogued(self, name: str, thing: str, work: Callable[[str], Awaitable[None]]) -> bool:
        """Something of the catalogue, asked for until it did as asked; False when it failed for no good reason."""
        while True:
            self.journal.note("ask", thing, f"{name} by {self.name}")
            try:
                await self.patiently(lambda: work(thing))
            except (OperationFailed, NoValidHost) as error:
                excused = EXCUSES.search(str(error)) is not None
                self._ended(name, thing, error, excused)
                if not excused:
                    return False
                await asyncio.sleep(self.rng.uniform(0.1, 0.5))
            else:
                self.tell(name, thing, "ended")
                return True

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The same call again for as long as the answer is that nobody answers."""
        while True:
            try:
                return await call()
            except Unavailable as error:
                self.outages += 1
                self.journal.note("outage", self.name, f"{self.doing}: {error}")
                await asyncio.sleep(self.rng.uniform(0.1, 0.5))

    def tell(self, name: str, thing: str, outcome: str, reason: str = "") -> None:
        self.outcomes[name, outcome] += 1
        if reason:
            self.reasons[re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|sim-\d+-\d+", "…", reason)] += 1
        self.journal.note("end", thing, f"{name}: {outcome}" + (f": {reason}" if reason else ""))

    def uuid(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))
