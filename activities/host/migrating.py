"""Guests that come to this host and leave it while they run."""

from temporalio import activity

from activities.host.images import base_image
from activities.interfaces import migrating as interface
from activities.interfaces.migrating import LookForArrival, MigrateGuest, PrepareIncoming, TakeOver
from activities.interfaces.servers import ServerRef
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.cache import ImageCache
from hostler.contract.guests import Arrival, GuestDescription, Incoming, MigrationReport, Whereabouts
from hostler.contract.states import PowerState


class Migrating(interface.Migrating):
    """The guests of one host that move."""

    def __init__(self, hypervisor: HypervisorDriver, images: ImageCache) -> None:
        self._hypervisor = hypervisor
        self._images = images

    @activity.defn(name="describe_guest")
    async def describe_guest(self, call: ServerRef) -> GuestDescription:
        return await self._hypervisor.describe(call.server_id)

    @activity.defn(name="prepare_incoming")
    async def prepare_incoming(self, call: PrepareIncoming) -> Incoming:
        base = await base_image(self._images, call.guest.disks)
        return await self._hypervisor.prepare_incoming(
            call.guest, call.description, base, activity.heartbeat, post_copy=call.post_copy
        )

    @activity.defn(name="migrate_guest")
    async def migrate_guest(self, call: MigrateGuest) -> MigrationReport:
        return await self._hypervisor.migrate(call.server_id, call.incoming, call.limits, activity.heartbeat)

    @activity.defn(name="end_migration")
    async def end_migration(self, call: ServerRef) -> Whereabouts:
        return await self._hypervisor.end_migration(call.server_id)

    @activity.defn(name="take_over")
    async def take_over(self, call: TakeOver) -> PowerState:
        await self._hypervisor.take_over(call.server_id, anew=call.anew)
        return await self._hypervisor.power_state(call.server_id)

    @activity.defn(name="look_for_arrival")
    async def look_for_arrival(self, call: LookForArrival) -> Arrival:
        return await self._hypervisor.arrival(call.server_id, refuse=call.refuse)

    @activity.defn(name="keep_guest")
    async def keep_guest(self, call: ServerRef) -> None:
        await self._hypervisor.keep(call.server_id)

    @activity.defn(name="force_complete")
    async def force_complete(self, call: ServerRef) -> None:
        await self._hypervisor.force_complete(call.server_id)
