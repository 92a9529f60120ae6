"""Snapshots: a guest's root disk, left as a file where the image store takes it in."""

import asyncio
import os
from pathlib import Path

from temporalio import activity

from activities.interfaces import snapshots as interface
from activities.interfaces.images import ImageId
from activities.interfaces.snapshots import SnapshotFile, SnapshotGuest
from drivers.hypervisor.base import HypervisorDriver
from drivers.image.base import ImageStore
from hostler.contract.errors import OperationFailed

OPEN_TO_ALL = 0o755
READABLE = 0o644


class HostSnapshots(interface.HostSnapshots):
    """The host's half."""

    def __init__(self, hypervisor: HypervisorDriver, store: ImageStore) -> None:
        self._hypervisor = hypervisor
        self._store = store

    @activity.defn(name="snapshot_guest")
    async def snapshot_guest(self, call: SnapshotGuest) -> SnapshotFile:
        """See the interface.

        Raises:
            OperationFailed: this host may not write there.
        """
        target = self._store.incoming(call.image_id)
        try:
            await asyncio.to_thread(_make, target.parent)
        except OSError as error:
            raise OperationFailed(
                f"the host cannot write into the image store: {error}",
                remedy=f"let host workers write {target.parent}",
            ) from error
        disk_format = await self._hypervisor.snapshot(call.server_id, target, call.quiesce, activity.heartbeat)
        await asyncio.to_thread(target.chmod, READABLE)  # the control worker may be another user
        return SnapshotFile(image_id=call.image_id, disk_format=disk_format)

    @activity.defn(name="discard_snapshot")
    async def discard_snapshot(self, call: ImageId) -> None:
        await asyncio.to_thread(self._store.incoming(call.image_id).unlink, missing_ok=True)


def _make(directory: Path) -> None:
    """The directory: QEMU, another user, must get through; the control worker, whose store it is, removes files."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        owner = directory.parent.stat()
        if os.geteuid() == 0:
            os.chown(directory, owner.st_uid, owner.st_gid)
        directory.chmod(OPEN_TO_ALL)
