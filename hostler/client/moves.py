"""The operations of `client.servers` that take a server off its host, to another one or to none for a while."""

from datetime import timedelta

from hostler.client.operating import Operating
from hostler.client.operation import Operation
from hostler.contract.servers import (
    ConfirmResizeRequest,
    EvacuateRequest,
    LiveMigrateRequest,
    MigrateRequest,
    OnFailure,
    OperationName,
    ResizeRequest,
    RevertResizeRequest,
    ShelveOffloadRequest,
    ShelveRequest,
    TimeoutAction,
    UnshelveRequest,
)


class Moves(Operating):
    """Shelving, resizing, migrating and evacuating.

    A resize or a migration ends in VERIFY_RESIZE: what the server was is kept until `confirm_resize` drops it or
    `revert_resize` brings it back.
    """

    async def shelve(
        self,
        server: str,
        *,
        offload_after: timedelta | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Power a server off and keep its root disk as an image; then its host gets it off, and its room back.

        Args:
            offload_after: how long it first keeps its host; None is the control worker's setting.
        """
        return await self._operate(
            OperationName.SHELVE, ShelveRequest, server, request_id, on_failure=on_failure, offload_after=offload_after
        )

    async def shelve_offload(
        self, server: str, *, on_failure: OnFailure | None = None, request_id: str | None = None
    ) -> Operation:
        """Take a shelved server, which still keeps its host, off it now."""
        return await self._operate(
            OperationName.SHELVE_OFFLOAD, ShelveOffloadRequest, server, request_id, on_failure=on_failure
        )

    async def unshelve(
        self,
        server: str,
        *,
        availability_zone: str | None = None,
        host: str | None = None,
        max_attempts: int | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Bring a shelved server back: on the host that it kept, or on another one.

        Args:
            availability_zone, host: where, of a server that keeps no host.
            max_attempts: on how many hosts to try; None is the control worker's setting.
        """
        return await self._operate(
            OperationName.UNSHELVE,
            UnshelveRequest,
            server,
            request_id,
            detail=f" on {host}" if host else "",
            on_failure=on_failure,
            availability_zone=availability_zone,
            host=host,
            max_attempts=max_attempts,
        )

    async def resize(
        self,
        server: str,
        flavor: str,
        *,
        max_attempts: int | None = None,
        confirm_after: timedelta | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Give a server another flavor, on whichever host has room for it.

        Args:
            max_attempts: on how many hosts to try; None is the control worker's setting.
            confirm_after: when it confirms itself, zero: never; None is the control worker's setting.
        """
        return await self._operate(
            OperationName.RESIZE,
            ResizeRequest,
            server,
            request_id,
            detail=f" to {flavor}",
            on_failure=on_failure,
            flavor=flavor,
            max_attempts=max_attempts,
            confirm_after=confirm_after,
        )

    async def migrate(
        self,
        server: str,
        *,
        host: str | None = None,
        max_attempts: int | None = None,
        confirm_after: timedelta | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Move a server, powered off meanwhile (cold), to another host: the one named, or the scheduler's choice.

        Args:
            max_attempts, confirm_after: as in `resize`.
        """
        return await self._operate(
            OperationName.MIGRATE,
            MigrateRequest,
            server,
            request_id,
            detail=f" to {host}" if host else "",
            on_failure=on_failure,
            host=host,
            max_attempts=max_attempts,
            confirm_after=confirm_after,
        )

    async def live_migrate(
        self,
        server: str,
        *,
        host: str | None = None,
        max_attempts: int | None = None,
        completion_timeout: timedelta | None = None,
        timeout_action: TimeoutAction | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Move a server to another host while it runs: to the one named, or to the scheduler's choice.

        `operations.cancel` aborts it, `operations.force_complete` hastens it.

        Args:
            max_attempts: on how many hosts to try; None is the control worker's setting.
            completion_timeout: how long its guest may take to get across, zero: no limit; None is the setting.
            timeout_action: what is done then; None is the setting.
        """
        return await self._operate(
            OperationName.LIVE_MIGRATE,
            LiveMigrateRequest,
            server,
            request_id,
            detail=f" to {host}" if host else "",
            on_failure=on_failure,
            host=host,
            max_attempts=max_attempts,
            completion_timeout=completion_timeout,
            timeout_action=timeout_action,
        )

    async def evacuate(
        self,
        server: str,
        *,
        host: str | None = None,
        max_attempts: int | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Build a server anew, away from its host, which was declared down; local disks that are not shared are lost.

        Args:
            host: where; else the scheduler chooses.
            max_attempts: on how many hosts to try; None is the control worker's setting.
        """
        return await self._operate(
            OperationName.EVACUATE,
            EvacuateRequest,
            server,
            request_id,
            detail=f" to {host}" if host else "",
            on_failure=on_failure,
            host=host,
            max_attempts=max_attempts,
        )

    async def confirm_resize(
        self, server: str, *, on_failure: OnFailure | None = None, request_id: str | None = None
    ) -> Operation:
        """Keep a resized or migrated server as it is now; what it left behind is removed."""
        return await self._operate(
            OperationName.CONFIRM_RESIZE, ConfirmResizeRequest, server, request_id, on_failure=on_failure
        )

    async def revert_resize(
        self, server: str, *, on_failure: OnFailure | None = None, request_id: str | None = None
    ) -> Operation:
        """Bring a resized or migrated server back to where and what it was; what happened to it since is lost."""
        return await self._operate(
            OperationName.REVERT_RESIZE, RevertResizeRequest, server, request_id, on_failure=on_failure
        )
