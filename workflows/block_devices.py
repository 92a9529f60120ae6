"""The shared steps of volumes: each runs on the host that keeps the volume's data, not on the server's.

| step | where | leaves behind | undo |
|---|---|---|---|
| create volume data | the volume's host | the file | deleted |
| export volume | the volume's host | the NBD export | withdrawn |
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ActivityError

from activities.interfaces.block_devices import BlockDevices, HostVolumes, PrepareDevices, VolumeRef, VolumeWork
from activities.interfaces.images import HostImages
from activities.interfaces.servers import AttachedVolume, HostRef
from hostler.contract.errors import OperationFailed
from hostler.contract.guests import GuestDisk, ImageRef, VolumeConnection, VolumeSpec
from workflows.failures import judge
from workflows.runner import StepRunner
from workflows.steps import Saga, StepDefinition

PREP_DEVICES = StepDefinition[PrepareDevices, list[VolumeWork]](
    BlockDevices.prep_block_devices, undo=BlockDevices.release_block_devices
)
FETCH_IMAGE = StepDefinition[ImageRef, None](
    HostImages.fetch_image, timeout=timedelta(hours=2), heartbeat=timedelta(seconds=30)
)
CREATE = StepDefinition[VolumeSpec, None](
    HostVolumes.create_volume_data,
    undo=HostVolumes.delete_volume_data,
    timeout=timedelta(hours=2),
    heartbeat=timedelta(seconds=60),
)
EXPORT = StepDefinition[VolumeRef, VolumeConnection](HostVolumes.export_volume, undo=HostVolumes.withdraw_volume)
WITHDRAW = StepDefinition[VolumeRef, None](HostVolumes.withdraw_volume)
DISCARD = StepDefinition[VolumeRef, None](HostVolumes.delete_volume_data)


class Keeper(HostRef):
    """The host that keeps a volume, asked as such: no other has it, also where the server is built on this one."""


def keeper(work: VolumeWork) -> Keeper:
    """Whom to ask about the volume."""
    return Keeper(**dict(work.host))


async def create(runner: StepRunner, work: VolumeWork, saga: Saga) -> None:
    """Make a volume's data on its host.

    Raises:
        OperationFailed: the host cannot.
    """
    if work.create is None:
        return
    ref = VolumeRef(volume_id=work.volume_id)
    with blaming(work):
        if work.create.image is not None:
            await runner.step(FETCH_IMAGE, work.create.image, on=keeper(work))
        await runner.step(CREATE, work.create, on=keeper(work), saga=saga, undo=ref)


async def connect(runner: StepRunner, works: Sequence[VolumeWork], saga: Saga) -> dict[str, VolumeConnection]:
    """Make what is to be made and export all of it; by volume UUID.

    Raises:
        OperationFailed: a volume's host cannot; another host for the server would not help.
    """
    connections = {}
    for work in works:
        await create(runner, work, saga)
        ref = VolumeRef(volume_id=work.volume_id)
        with blaming(work):
            connections[work.volume_id] = await runner.step(EXPORT, ref, on=keeper(work), saga=saga, undo=ref)
    return connections


@contextmanager
def blaming(work: VolumeWork) -> Iterator[None]:
    """A failure of the volume's host says so: it is the only one that has the volume."""
    try:
        yield
    except ActivityError as failure:
        reason = judge(failure, host=work.host.name).error.detail.message
        raise OperationFailed(
            f"volume {work.volume_id} on host {work.host.name}: {reason}",
            field="volume",
            value=work.volume_id,
            remedy=f"see what is wrong with the host: hostler host show {work.host.name}",
        ) from failure


async def disconnect(runner: StepRunner, volumes: Sequence[AttachedVolume]) -> None:
    """Withdraw every export and discard the data that goes with the server; a silent host owes it."""
    for volume in volumes:
        if volume.host is not None:
            ref = VolumeRef(volume_id=volume.volume_id)
            await runner.ensure(DISCARD if volume.discard else WITHDRAW, ref, on=volume.host)


def connected(disks: Sequence[GuestDisk], connections: dict[str, VolumeConnection]) -> list[GuestDisk]:
    """The disks, each volume with its connection."""
    return [
        disk.model_copy(update={"connection": connections[disk.volume_id]}) if disk.volume_id else disk
        for disk in disks
    ]
