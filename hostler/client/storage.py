"""`client.images` and `.volumes`: what takes its time is a workflow, and the rest a call."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel
from temporalio.client import WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy

from hostler.client.catalogue import Namespace
from hostler.client.connection import Connection
from hostler.client.progress import TICK_S, pending_activities
from hostler.contract import calls
from hostler.contract.names import CONTROL_QUEUE, image_workflow_id, volume_workflow_id
from hostler.contract.resources import DiskFormat, Image, ImageCreate, ImageProperties, Volume, VolumeCreate
from hostler.contract.validation import check_image, check_volume

T = TypeVar("T")
Notes = Callable[[str], None]


class Images(Namespace):
    """Images, named by name or UUID."""

    async def create(
        self,
        name: str,
        path: str | Path,
        *,
        disk_format: str = DiskFormat.QCOW2,
        checksum: str | None = None,
        min_disk_gib: int = 0,
        min_ram_mib: int = 0,
        architecture: str | None = None,
        hypervisor_type: str | None = None,
        image_id: str | None = None,
        on_note: Notes | None = None,
    ) -> Image:
        """Import a file, and return when the image can be used.

        Args:
            path: absolute, as the control worker sees it.
            checksum: the file's SHA-256, if it shall be checked.
            on_note: is called with each word of the import on how far it is.

        Raises:
            ImageRejected: the file is not what it is said to be, or unsafe.
            InvalidRequest, Conflict, OperationFailed, Unavailable: as they say.
        """
        request = ImageCreate(
            id=image_id or str(uuid4()),
            name=name,
            path=str(path),
            disk_format=disk_format,
            checksum=checksum,
            min_disk_gib=min_disk_gib,
            min_ram_mib=min_ram_mib,
            properties=ImageProperties(architecture=architecture, hypervisor_type=hypervisor_type),
            project=self._project,
        )
        check_image(request)
        return await _run(
            self._connection,
            calls.CREATE_IMAGE,
            request,
            Image,
            workflow_id=image_workflow_id(request.id),
            summary=f"import image {name}",
            on_note=on_note,
        )

    async def list(self, *, all_projects: bool = False) -> Sequence[Image]:
        """The project's images, or everybody's."""
        return await self._connection.call(calls.LIST_IMAGES, self._filter(all_projects))

    async def show(self, image: str) -> Image:
        """One image."""
        return await self._connection.call(calls.SHOW_IMAGE, self._ref(image))

    async def delete(self, image: str) -> None:
        """Delete an image; servers made from it go on."""
        await self._connection.call(calls.DELETE_IMAGE, self._ref(image))


class Volumes(Namespace):
    """Volumes, named by name or UUID."""

    async def create(
        self,
        name: str = "",
        *,
        size_gib: int,
        image: str | None = None,
        volume_id: str | None = None,
        on_note: Notes | None = None,
    ) -> Volume:
        """Make a volume, blank or from an image, and return when it can be used.

        Raises:
            InvalidRequest, NotFound, QuotaExceeded, NoValidHost, OperationFailed, Unavailable: as they say.
        """
        request = VolumeCreate(
            id=volume_id or str(uuid4()), name=name, size_gib=size_gib, image=image, project=self._project
        )
        check_volume(request)
        return await _run(
            self._connection,
            calls.CREATE_VOLUME,
            request,
            Volume,
            workflow_id=volume_workflow_id(request.id),
            summary=f"create volume {name or request.id}, {size_gib} GiB",
            on_note=on_note,
        )

    async def list(self, *, all_projects: bool = False) -> Sequence[Volume]:
        """The project's volumes, or everybody's."""
        return await self._connection.call(calls.LIST_VOLUMES, self._filter(all_projects))

    async def show(self, volume: str) -> Volume:
        """One volume."""
        return await self._connection.call(calls.SHOW_VOLUME, self._ref(volume))

    async def delete(self, volume: str) -> None:
        """Delete a volume that no server uses, and return when it is gone."""
        shown = await self.show(volume)
        await _run(
            self._connection,
            calls.DELETE_VOLUME,
            self._ref(shown.id),
            calls.Nothing,
            workflow_id=volume_workflow_id(shown.id),
            summary=f"delete volume {shown.name or shown.id}",
        )


async def _run(
    connection: Connection,
    workflow: str,
    request: BaseModel,
    result: type[T],
    *,
    workflow_id: str,
    summary: str,
    on_note: Notes | None = None,
) -> T:
    """A workflow's result; the same workflow that runs already is joined."""

    async def work() -> T:
        handle: WorkflowHandle[Any, T] = await connection.temporal.start_workflow(
            workflow,
            request,
            id=workflow_id,
            task_queue=CONTROL_QUEUE,
            result_type=result,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=summary,
        )
        async with _notes(handle, on_note):
            return await handle.result()

    return await connection.answered(work(), endless=True)


@contextlib.asynccontextmanager
async def _notes(handle: WorkflowHandle[Any, Any], on_note: Notes | None) -> AsyncIterator[None]:
    """Pass on what the workflow's activities say in their heartbeats."""
    if on_note is None:
        yield
        return
    task = asyncio.create_task(_pass_on(handle, on_note))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pass_on(handle: WorkflowHandle[Any, Any], on_note: Notes) -> None:
    said = None
    while True:
        description = await handle.describe()
        for activity in await pending_activities(description, description.data_converter):
            note = activity.note or activity.error
            if note is not None and note != said:
                said = note
                on_note(note)
        await asyncio.sleep(TICK_S)
