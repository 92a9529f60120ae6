"""What should be, by what was asked for and answered; and where that differs from what is."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from hostler.contract.servers import MigrationStatus
from hostler.contract.states import PowerState, VmState
from models import Host, Image, Migration, Server, Volume, quota_use
from tests.cloud import DEMO
from tests.processes.cloud import ProcessCloud

POWER = {VmState.ACTIVE: PowerState.RUNNING, VmState.STOPPED: PowerState.SHUTDOWN}
ON_A_HOST = frozenset({*POWER, VmState.RESIZED, VmState.SHELVED})
SHELVES = (VmState.SHELVED, VmState.SHELVED_OFFLOADED)
THERE = ON_A_HOST | {VmState.SHELVED_OFFLOADED}
"""The states in which a server has its addresses and volumes."""


@dataclass
class Expected:
    """What a server should be. `certain` is False after a power operation that failed or was cancelled half-way.

    Its state in the database is then the former one; what its guest does, nobody promised before the next audit.
    `former` is what it was before the move that waits for a decision, `larger` whether it was resized, `backups` are
    the UUIDs of its backups.
    """

    state: VmState = VmState.BUILDING
    former: VmState = VmState.ACTIVE
    larger: bool = False
    resizing: bool = False
    backups: list[str] = field(default_factory=list)
    certain: bool = True
    networks: int = 0
    volumes: list[str] = field(default_factory=list)


@dataclass
class Model:
    """All that the tenants have made: servers by UUID, the UUIDs of volumes and images.

    `perhaps` are images of operations that a delete cut short: they had been made by then, or not.
    """

    servers: dict[str, Expected] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)

    @property
    def attached(self) -> set[str]:
        """The UUIDs of volumes that servers use."""
        return {volume for one in self.servers.values() if one.state in THERE for volume in one.volumes}

    async def differences(self, cloud: ProcessCloud) -> list[str]:
        """Where the database and the hosts' holdings are not what they should be."""
        found = [*self._rows(cloud), *await self._holdings(cloud)]
        return found + [f"in the database: {text}" for text in self._catalogue(cloud)]

    def _rows(self, cloud: ProcessCloud) -> Iterator[str]:
        rows = {row.id: row for row in cloud.rows(Server)}
        for server_id in sorted(rows.keys() - self.servers.keys()):
            yield f"server {server_id}: nobody asked for it"
        for server_id, expected in self.servers.items():
            row = rows.get(server_id)
            state = row.vm_state if row else None
            if state is not expected.state and not (row is None and expected.state is VmState.DELETED):
                yield f"server {server_id}: {state} instead of {expected.state}"
            elif row and (row.task_state or row.operation_id):
                yield f"server {server_id}: still {row.task_state}, held by run {row.operation_id}"

    async def _holdings(self, cloud: ProcessCloud) -> list[str]:
        """Allocations, claims, guests and ports: exactly those of the servers that are on a host, where they are."""
        hosts = {host.id: host.name for host in cloud.rows(Host)}
        rows = {row.id: row for row in cloud.rows(Server)}
        there = {
            (hosts[row.host_id], server_id)
            for server_id, expected in self.servers.items()
            if expected.state in ON_A_HOST and (row := rows.get(server_id)) and row.host_id
        }
        left = {
            (hosts[move.source_id], move.server_id)
            for move in cloud.rows(Migration)
            if move.status is MigrationStatus.FINISHED
        }
        connected = {(host, server) for host, server in there | left if self.servers[server].networks}
        addressed = {server for server, one in self.servers.items() if one.state in THERE and one.networks}
        world = await cloud.world()
        found = [
            *_differ("allocations", world.allocations, there | left),
            *_differ("claims", world.claims, there),
            *_differ("guests", world.guests, there),
            *_differ("former guests and claims", world.formers, left),
            *_differ("received disks", world.incoming, set()),
            *_differ("bound ports", world.bound_ports, connected),
            *_differ("ports", {server for server, _ in world.ports}, addressed),
            *_differ("owed work", world.owed, set()),
            *_differ("open workflows", world.workflows, set()),
        ]
        served: set[str] = set()
        kept: set[str] = set()
        for machine in await cloud.machines():
            for host, server_id in there:
                expected = self.servers[server_id]
                if host == machine.name and expected.certain and expected.state in POWER:
                    power = await machine.hypervisor.power_state(server_id)
                    if power is not POWER[expected.state] or power is not rows[server_id].power_state:
                        found.append(f"server {server_id}: {expected.state}, in the row {power}, its guest is {power}")
            if machine.volumes is not None:
                kept |= set(await machine.volumes.volumes())
                served |= set(await machine.volumes.exports())
        found += _differ("volume data", kept, self.volumes | self.attached)
        shelved = {
            one
            for server in self.servers.values()
            if server.state is VmState.SHELVED_OFFLOADED
            for one in server.volumes
        }
        return [*found, *_differ("exports", served, self.attached - shelved)]

    def _catalogue(self, cloud: ProcessCloud) -> Iterator[str]:
        yield from _differ("volumes", {row.id for row in cloud.rows(Volume)}, self.volumes | self.attached)
        images = {row.id for row in cloud.rows(Image) if row.name != DEMO}
        on_shelves = {row.shelved_image_id for row in cloud.rows(Server) if row.vm_state in SHELVES}
        yield from _differ("images", images - self.perhaps, self.images | (on_shelves - {None}))
        existing = [row for row in cloud.rows(Server) if row.vm_state is not VmState.DELETED]
        with cloud.database.read() as session:
            use = quota_use(session, cloud.settings.project)
        if use.servers != len(existing):
            yield f"quota: {use.servers} servers are counted, {len(existing)} exist"


def _differ(what: str, found: Set[object], wanted: Set[object]) -> Iterator[str]:
    for one in sorted(map(str, found - wanted)):
        yield f"{what}: {one} is left over"
    for one in sorted(map(str, wanted - found)):
        yield f"{what}: {one} is missing"
