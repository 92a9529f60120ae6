"""What a boot asks of the scheduler and of a host, and what it makes of their answers."""

from collections.abc import Sequence

from activities.interfaces.scheduling import Schedule
from activities.interfaces.servers import BootPlan, HostRef
from hostler.contract.errors import AttemptReport, BuildFailed, NoValidHost
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding, VolumeConnection
from hostler.contract.servers import BootRequest, Choice, Progress
from workflows.block_devices import connected
from workflows.failures import Verdict


def local_disk_gib(plan: BootPlan) -> int:
    """What the server's disks take of its host, in whole GiB."""
    size = sum(disk.size_bytes for disk in plan.disks if disk.volume_id is None)
    return -(-size // 2**30)


def wanted(
    request: BootRequest, plan: BootPlan, run_id: str, alternates: list[str], tried: list[str], host: str | None = None
) -> Schedule:
    """What the scheduler is asked for; `host` is an operator's decision, over the request's wish."""
    return Schedule(
        server_id=plan.server_id,
        run_id=run_id,
        vcpus=plan.flavor.vcpus,
        ram_mib=plan.flavor.ram_mib,
        disk_gib=local_disk_gib(plan),
        zone=request.availability_zone,
        host=host or request.host,
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


def ways_out(
    verdict: Verdict, on: HostRef | None, host: HostRef | None, *, may_run: bool, attempts_left: bool
) -> Sequence[Choice]:
    """What an operator may decide about a step that failed `on` a host; nothing while another is tried anyway.

    `host` is the one on which the server is being built: only a step there, or the search for one, leads elsewhere.
    """
    here = on is not None and host is not None and on.id == host.id
    may_run_unseen = may_run and not verdict.answered
    if here and verdict.reschedule and attempts_left and not may_run_unseen:
        return ()
    searching = on is None and isinstance(verdict.error, NoValidHost)
    if searching or (here and not may_run_unseen):
        return (Choice.RETRY, Choice.MOVE, Choice.GIVE_UP)
    return (Choice.RETRY, Choice.GIVE_UP)


def attempt_report(progress: Progress, host: HostRef, verdict: Verdict) -> AttemptReport:
    """What the attempt at a host came to."""
    failed = [step.name for step in progress.steps if step.attempt == progress.attempt and step.error]
    return AttemptReport(
        attempt=progress.attempt,
        host=host.name,
        step=failed[-1] if failed else "-",
        reason=verdict.error.detail.message,
    )


def may_be_running(host: HostRef) -> BuildFailed:
    """The one failure after which no other host is tried."""
    return BuildFailed(
        f"the guest may be running on host {host.name}, which does not answer: it is not built a second time",
        remedy=f"when {host.name} is back, or surely dead, delete the server and boot it again",
    )
