"""Guests: spawned, run and removed on their host."""

from temporalio import activity

from activities.host.images import base_image
from activities.interfaces import guests as interface
from activities.interfaces.guests import ExpectGuest, OfferDisks, RebootGuest, StopGuest
from activities.interfaces.servers import ServerRef
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.cache import ImageCache
from hostler.contract.calls import CONSOLE_LOG, ConsoleRequest
from hostler.contract.errors import InvalidState, NotFound
from hostler.contract.guests import DisksOffer, GuestSpec
from hostler.contract.states import PowerState


class Guests(interface.Guests):
    """The guests of one host."""

    def __init__(self, hypervisor: HypervisorDriver, images: ImageCache) -> None:
        self._hypervisor = hypervisor
        self._images = images

    @activity.defn(name="spawn")
    async def spawn(self, call: GuestSpec) -> None:
        await self._hypervisor.spawn(call, await base_image(self._images, call.disks), activity.heartbeat)

    @activity.defn(name="destroy_guest")
    async def destroy_guest(self, call: ServerRef) -> None:
        await self._hypervisor.destroy(call.server_id)

    @activity.defn(name="set_aside_guest")
    async def set_aside_guest(self, call: ServerRef) -> None:
        await self._hypervisor.set_aside(call.server_id)

    @activity.defn(name="bring_back_guest")
    async def bring_back_guest(self, call: ServerRef) -> None:
        await self._hypervisor.bring_back(call.server_id)

    @activity.defn(name="drop_former_guest")
    async def drop_former_guest(self, call: ServerRef) -> None:
        await self._hypervisor.drop_former(call.server_id)

    @activity.defn(name="expect_guest")
    async def expect_guest(self, call: ExpectGuest) -> PowerState:
        if call.former and await self._hypervisor.has_former(call.server_id):
            return PowerState.SHUTDOWN
        power_state = PowerState.NOSTATE
        if call.in_place:
            power_state = await self._hypervisor.power_state(call.server_id)
        if power_state is PowerState.NOSTATE and not call.may_be_gone:
            raise InvalidState(
                f"the host has no guest of server {call.server_id}" + (", nor its former one" if call.former else ""),
                field="server",
                value=call.server_id,
                remedy="compare what there is with what should be: hostler audit",
            )
        return power_state

    @activity.defn(name="offer_disks")
    async def offer_disks(self, call: OfferDisks) -> DisksOffer:
        return await self._hypervisor.offer_disks(call.server_id, call.flatten, activity.heartbeat)

    @activity.defn(name="withdraw_offer")
    async def withdraw_offer(self, call: ServerRef) -> None:
        await self._hypervisor.withdraw_offer(call.server_id)

    @activity.defn(name="receive_disks")
    async def receive_disks(self, call: DisksOffer) -> None:
        await self._hypervisor.receive_disks(call, activity.heartbeat)

    @activity.defn(name="resume_guest")
    async def resume_guest(self, call: ServerRef) -> PowerState:
        await self._hypervisor.resume(call.server_id)
        return await self._hypervisor.power_state(call.server_id)

    @activity.defn(name="start_guest")
    async def start_guest(self, call: ServerRef) -> PowerState:
        await self._hypervisor.start(call.server_id)
        return await self._hypervisor.power_state(call.server_id)

    @activity.defn(name="stop_guest")
    async def stop_guest(self, call: StopGuest) -> PowerState:
        await self._hypervisor.stop(call.server_id, call.timeout, activity.heartbeat)
        return await self._hypervisor.power_state(call.server_id)

    @activity.defn(name="reboot_guest")
    async def reboot_guest(self, call: RebootGuest) -> PowerState:
        if call.hard:
            await self._hypervisor.reset(call.server_id)
        else:
            await self._hypervisor.stop(call.server_id, call.timeout, activity.heartbeat)
            await self._hypervisor.start(call.server_id)
        return await self._hypervisor.power_state(call.server_id)

    @activity.defn(name=CONSOLE_LOG.name)
    async def console_log(self, call: ConsoleRequest) -> str:
        """The end of the guest's console; a call of the client, not a step."""
        if await self._hypervisor.power_state(call.server_id) is PowerState.NOSTATE:
            raise NotFound(f"server {call.server_id} has no guest on this host", field="server", value=call.server_id)
        return await self._hypervisor.console_log(call.server_id, call.max_bytes)
