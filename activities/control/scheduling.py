"""Choosing a host and giving it back."""

from temporalio import activity

from activities.control.find import find_host
from activities.interfaces import scheduling as interface
from activities.interfaces.scheduling import Allocation, HostName, Placement, Schedule, Story
from activities.interfaces.servers import HostRef
from models import Database, Image
from scheduler.request import SchedulingRequest
from scheduler.reservation import release
from scheduler.scheduler import Scheduler


class Scheduling(interface.Scheduling):
    """Owner of the allocations."""

    def __init__(self, database: Database, scheduler: Scheduler) -> None:
        self._database = database
        self._scheduler = scheduler

    @activity.defn(name="schedule")
    def schedule(self, call: Schedule) -> Placement:
        placement = self._scheduler.schedule(self._request(call), call.alternates)
        return Placement(
            host=HostRef(id=placement.host_id, name=placement.host_name),
            alternates=[host_id for host_id, _ in placement.alternates],
        )

    @activity.defn(name="locate")
    def locate(self, call: HostName) -> HostRef:
        with self._database.read() as session:
            host = find_host(session, call.name)
            return HostRef(id=host.id, name=host.name)

    @activity.defn(name="explain")
    def explain(self, call: Schedule) -> Story:
        considered, filters = self._scheduler.explain(self._request(call))
        return Story(considered=considered, filters=filters)

    @activity.defn(name="release_allocation")
    def release_allocation(self, call: Allocation) -> None:
        self._database.run(lambda session: release(session, call.server_id, call.host_id))

    def _request(self, call: Schedule) -> SchedulingRequest:
        properties: dict[str, str | None] = {}
        if call.image_id is not None:
            with self._database.read() as session:
                image = session.get(Image, call.image_id)
                properties = image.properties if image else {}
        return SchedulingRequest(
            server_id=call.server_id,
            run_id=call.run_id,
            vcpus=call.vcpus,
            ram_mib=call.ram_mib,
            disk_gib=call.disk_gib,
            zone=call.zone,
            host=call.host,
            architecture=call.architecture or properties.get("architecture"),
            hypervisor_type=call.hypervisor_type or properties.get("hypervisor_type"),
            excluded=frozenset(call.excluded),
        )
