"""Claims: the host's own book of what its servers take, and its veto over the scheduler's idea of it."""

import asyncio
from contextlib import suppress
from pathlib import Path

from temporalio import activity

from activities.interfaces import guests as interface
from activities.interfaces.guests import SetAsideClaim
from activities.interfaces.servers import ServerRef
from drivers.durable import put_in_place, write_text
from drivers.hypervisor.base import HypervisorDriver
from drivers.strays import strays
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import ClaimSpec
from hostler.contract.resources import Inventory

FORMER = "former"


class Claims(interface.Claims):
    """One JSON file a claim in `directory`, and a former one in `former` there, so that the book outlives the worker.

    A former claim is that of a server whose move may yet be reverted: it still counts. `durable` makes the book outlive
    a power cut as well, which simulated hosts do not need.
    """

    def __init__(
        self, directory: Path, inventory: Inventory, hypervisor: HypervisorDriver, durable: bool = True
    ) -> None:
        self._directory = directory
        self._inventory = inventory
        self._hypervisor = hypervisor
        self._durable = durable
        self._turn = asyncio.Lock()
        self._former_directory = directory / FORMER
        self._former_directory.mkdir(parents=True, exist_ok=True)
        self._claims = _read_all(directory)
        self._formers = _read_all(self._former_directory)

    @activity.defn(name="claim_resources")
    async def claim_resources(self, call: ClaimSpec) -> None:
        async with self._turn:
            if call.server_id in self._claims:
                return
            self._check_book(call)
            await self._check_reality(call)
            if self._durable:
                await asyncio.to_thread(write_text, self._file(call.server_id), call.model_dump_json())
            else:
                write_text(self._file(call.server_id), call.model_dump_json(), sync=False)
            self._claims[call.server_id] = call

    def held(self) -> list[str]:
        """The servers whose claims have a whole file now."""
        return sorted(_read_all(self._directory))

    def formers(self) -> list[str]:
        """The servers whose former claims have one."""
        return sorted(_read_all(self._former_directory))

    def strays(self) -> list[str]:
        """Files that are no claim."""
        own = strays(self._directory, lambda path: path == self._former_directory or _read(path) is not None)
        return [*own, *strays(self._former_directory, lambda path: _read(path) is not None)]

    @activity.defn(name="drop_claim")
    async def drop_claim(self, call: ServerRef) -> None:
        async with self._turn:
            self._file(call.server_id).unlink(missing_ok=True)
            self._claims.pop(call.server_id, None)

    @activity.defn(name="set_aside_claim")
    async def set_aside_claim(self, call: SetAsideClaim) -> None:
        if call.leaves:  # later its guest would be off, for nothing
            await self._hypervisor.check_leaving(call.server_id)
        async with self._turn:
            claim = self._claims.get(call.server_id)
            if claim is not None and call.server_id not in self._formers:
                await asyncio.to_thread(self._set_aside, claim.server_id)

    @activity.defn(name="bring_back_claim")
    async def bring_back_claim(self, call: ServerRef) -> None:
        async with self._turn:
            if call.server_id in self._formers:
                await asyncio.to_thread(self._bring_back, call.server_id)

    @activity.defn(name="drop_former_claim")
    async def drop_former_claim(self, call: ServerRef) -> None:
        async with self._turn:
            self._former_file(call.server_id).unlink(missing_ok=True)
            self._formers.pop(call.server_id, None)

    # File and book together, on one thread: who is cancelled meanwhile finds both as they should be.

    def _set_aside(self, server_id: str) -> None:
        self._move(self._file(server_id), self._former_file(server_id))
        self._formers[server_id] = self._claims.pop(server_id)

    def _bring_back(self, server_id: str) -> None:
        self._move(self._former_file(server_id), self._file(server_id))
        self._claims[server_id] = self._formers.pop(server_id)

    def _move(self, file: Path, to: Path) -> None:
        if self._durable:
            put_in_place(file, to)
        else:
            file.rename(to)

    def _check_book(self, call: ClaimSpec) -> None:
        has = self._inventory
        claims = [*self._claims.values(), *self._formers.values()]
        self._check("vCPUs", call.vcpus, int(has.vcpus * has.cpu_ratio), sum(claim.vcpus for claim in claims))
        ram = int((has.ram_mib - has.reserved_ram_mib) * has.ram_ratio)
        self._check("MiB of RAM", call.ram_mib, ram, sum(claim.ram_mib for claim in claims))
        disk = int((has.disk_gib - has.reserved_disk_gib) * has.disk_ratio)
        self._check("GiB of disk", call.disk_gib, disk, sum(claim.disk_gib for claim in claims))

    async def _check_reality(self, call: ClaimSpec) -> None:
        """What others on the machine use, the book does not show. Overcommit is allowed to outgrow reality."""
        if self._inventory.ram_ratio <= 1:
            free = await self._hypervisor.free_ram_mib()
            self._check("MiB of RAM", call.ram_mib, free, 0)
        if self._inventory.disk_ratio <= 1:
            self._check("GiB of disk", call.disk_gib, await self._hypervisor.free_disk_gib(), 0)

    def _check(self, what: str, wanted: int, has: int, claimed: int) -> None:
        if wanted > has - claimed:
            raise RescheduleError(f"{wanted} {what} wanted, {max(0, has - claimed)} left", value=wanted)

    def _file(self, server_id: str) -> Path:
        return self._directory / f"{server_id}.json"

    def _former_file(self, server_id: str) -> Path:
        return self._former_directory / f"{server_id}.json"


def _read_all(directory: Path) -> dict[str, ClaimSpec]:
    claims = filter(None, map(_read, directory.glob("*.json")))
    return {claim.server_id: claim for claim in claims}


def _read(file: Path) -> ClaimSpec | None:
    """The claim in a file; None when it is not whole: a host that cannot start for it would help nobody."""
    with suppress(FileNotFoundError, ValueError):
        claim = ClaimSpec.model_validate_json(file.read_text())
        return claim if file.name == f"{claim.server_id}.json" else None
    return None
