"""What a boot asks of the scheduler and of a host, made of its plan."""

from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import BootPlan
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding, VolumeConnection
from hostler.contract.servers import BootRequest
from workflows.block_devices import connected


def local_disk_gib(plan: BootPlan) -> int:
    """What the server's disks take of its host, in whole GiB."""
    size = sum(disk.size_bytes for disk in plan.disks if disk.volume_id is None)
    return -(-size // 2**30)


def wanted(request: BootRequest, plan: BootPlan, alternates: list[str], tried: list[str]) -> Schedule:
    """What the scheduler is asked for."""
    return Schedule(
        server_id=plan.server_id,
        vcpus=plan.flavor.vcpus,
        ram_mib=plan.flavor.ram_mib,
        disk_gib=local_disk_gib(plan),
        zone=request.availability_zone,
        host=request.host,
        image_id=plan.image.id if plan.image else None,
        alternates=alternates,
        excluded=tried,
    )


def claim(plan: BootPlan) -> ClaimSpec:
    """The resources to claim."""
    return ClaimSpec(
        server_id=plan.server_id,
        vcpus=plan.flavor.vcpus,
        ram_mib=plan.flavor.ram_mib,
        disk_gib=local_disk_gib(plan),
    )


def guest(
    request: BootRequest, plan: BootPlan, ports: list[PortBinding], connections: dict[str, VolumeConnection]
) -> GuestSpec:
    """The guest to spawn."""
    return GuestSpec(
        server_id=plan.server_id,
        name=plan.name,
        project=plan.project,
        flavor=plan.flavor.name,
        vcpus=plan.flavor.vcpus,
        ram_mib=plan.flavor.ram_mib,
        disks=connected(plan.disks, connections),
        ports=ports,
        metadata=request.metadata,
        public_keys=plan.public_keys,
        user_data=request.user_data,
        config_drive=request.config_drive,
        availability_zone=request.availability_zone,
    )
