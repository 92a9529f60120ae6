"""`client.servers`: servers, and the operations on them."""

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import uuid4

from hostler.client.identify import identify
from hostler.client.moves import Moves
from hostler.client.operation import Operation, begin, latest
from hostler.contract.calls import (
    CONSOLE_LOG,
    LIST_EVENTS,
    LIST_SERVERS,
    SET_SERVER,
    SHOW_SERVER,
    ConsoleRequest,
    Ref,
    ServerFilter,
    ServerMetadata,
)
from hostler.contract.errors import InvalidState, NotFound
from hostler.contract.names import host_queue
from hostler.contract.servers import (
    BackupRequest,
    BlockDeviceMapping,
    BootRequest,
    DeleteRequest,
    NetworkRequest,
    OnFailure,
    OperationName,
    RebootRequest,
    RebuildRequest,
    Server,
    ServerEvent,
    SnapshotRequest,
    StartRequest,
    StopRequest,
)
from hostler.contract.validation import check_boot, check_metadata


class Servers(Moves):
    """Servers are named by UUID or, where only one has it, by name.

    Each operation returns once it is accepted, as an `Operation` to follow or await, and raises `InvalidRequest`,
    `NotFound`, `InvalidState`, `ServerBusy`, `Conflict`, `QuotaExceeded` or `Unavailable` when it is not. A call with
    the `request_id` of a former one joins that one instead of doing it twice.
    """

    async def boot(
        self,
        name: str,
        *,
        flavor: str,
        image: str | None = None,
        networks: Sequence[str | NetworkRequest] = (),
        block_devices: Sequence[BlockDeviceMapping] = (),
        key_name: str | None = None,
        user_data: bytes | str | None = None,
        metadata: Mapping[str, str] | None = None,
        availability_zone: str | None = None,
        host: str | None = None,
        config_drive: bool = True,
        max_attempts: int | None = None,
        on_failure: OnFailure | None = None,
        server_id: str | None = None,
    ) -> Operation:
        """Build a server. Two calls with the same `server_id` build one.

        Without a config drive it can be given neither a key nor user data.

        Args:
            networks: names or UUIDs, or requests that ask for an address too.
            user_data: bytes as they are, or text that is base64 already.
            max_attempts: on how many hosts to try; None is the control worker's setting.
            on_failure: whether to hold rather than give up; None is the control worker's setting.
            server_id: the UUID to give it; None makes one.
        """
        server_id = server_id or str(uuid4())
        request = BootRequest(
            server_id=server_id,
            request_id=server_id,
            project=self._project,
            name=name,
            flavor=flavor,
            image=image,
            networks=[NetworkRequest(network=n) if isinstance(n, str) else n for n in networks],
            block_device_mapping=list(block_devices),
            key_name=key_name,
            user_data=_base64(user_data),
            metadata=dict(sorted((metadata or {}).items())),
            availability_zone=availability_zone,
            host=host,
            config_drive=config_drive,
            max_attempts=max_attempts,
            on_failure=on_failure,
        )
        check_boot(request)
        source = f"image {image}" if image else "from a volume"
        return await begin(
            self._connection,
            OperationName.BOOT,
            request,
            summary=f"boot {name}, {flavor}, {source}",
            server_name=name,
        )

    async def start(
        self, server: str, *, on_failure: OnFailure | None = None, request_id: str | None = None
    ) -> Operation:
        """Power a server on."""
        return await self._operate(OperationName.START, StartRequest, server, request_id, on_failure=on_failure)

    async def stop(
        self,
        server: str,
        *,
        timeout: timedelta | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Power a server off: its guest is asked, and after `timeout` not asked any more."""
        return await self._operate(
            OperationName.STOP, StopRequest, server, request_id, on_failure=on_failure, timeout=timeout
        )

    async def reboot(
        self,
        server: str,
        *,
        hard: bool = False,
        timeout: timedelta | None = None,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Reboot a server: its guest is asked first, unless `hard`."""
        return await self._operate(
            OperationName.REBOOT, RebootRequest, server, request_id, on_failure=on_failure, timeout=timeout, hard=hard
        )

    async def snapshot(
        self,
        server: str,
        name: str,
        *,
        image_id: str | None = None,
        quiesce: bool = False,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Make an image of a server's root disk; the server goes on. The operation tells the image's UUID.

        Args:
            image_id: the UUID to give it; None makes one.
            quiesce: fail where the guest has no agent that freezes its file systems for the moment.
        """
        return await self._operate(
            OperationName.SNAPSHOT,
            SnapshotRequest,
            server,
            request_id,
            detail=f" as {name}",
            on_failure=on_failure,
            image_id=image_id,
            name=name,
            quiesce=quiesce,
        )

    async def backup(
        self,
        server: str,
        name: str,
        *,
        backup_type: str,
        rotation: int,
        image_id: str | None = None,
        quiesce: bool = False,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Make a snapshot of a kind, and delete those of the server's backups of it that are no longer to be kept.

        Args:
            backup_type: the kind: "daily", say.
            rotation: how many of the kind to keep, this one included.
            image_id, quiesce: as in `snapshot`.
        """
        return await self._operate(
            OperationName.BACKUP,
            BackupRequest,
            server,
            request_id,
            detail=f" as {name}, {backup_type}",
            on_failure=on_failure,
            image_id=image_id,
            name=name,
            quiesce=quiesce,
            backup_type=backup_type,
            rotation=rotation,
        )

    async def rebuild(
        self,
        server: str,
        *,
        image: str | None = None,
        key_name: str | None = None,
        user_data: bytes | str | None = None,
        admin_password: str | None = None,
        preserve_ephemeral: bool = False,
        on_failure: OnFailure | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Make a server's root disk anew; what is on it is lost, the server's UUID, addresses and volumes stay.

        One without a config drive cannot be given a key, user data or a password.

        Args:
            image: None is the one that it has.
            key_name, user_data: as in `boot`; None leaves what there is, an empty one takes it away.
            admin_password: for the default user of cloud-init or cloudbase-init; None leaves what there is.
            preserve_ephemeral: keep its ephemeral disks as they are.
        """
        return await self._operate(
            OperationName.REBUILD,
            RebuildRequest,
            server,
            request_id,
            detail=f", image {image}" if image else "",
            on_failure=on_failure,
            image=image,
            key_name=key_name,
            user_data=_base64(user_data),
            admin_password=admin_password,
            preserve_ephemeral=preserve_ephemeral,
        )

    async def delete(
        self, server: str, *, on_failure: OnFailure | None = None, request_id: str | None = None
    ) -> Operation:
        """Delete a server, also in the middle of its boot."""
        return await self._operate(OperationName.DELETE, DeleteRequest, server, request_id, on_failure=on_failure)

    async def list(
        self,
        *,
        status: str | None = None,
        host: str | None = None,
        name: str | None = None,
        deleted: bool = False,
        all_projects: bool = False,
    ) -> Sequence[Server]:
        """The project's servers, or everybody's; `deleted` ones only when asked for."""
        wanted = ServerFilter(
            project=self._project,
            all_projects=all_projects,
            status=status,
            host=host,
            name=name,
            deleted=deleted,
        )
        return await self._connection.call(LIST_SERVERS, wanted)

    async def show(self, server: str) -> Server:
        """One server; a deleted one too, by its UUID."""
        server_id, _ = await identify(self._connection, server)
        return await self._connection.call(SHOW_SERVER, Ref(ref=server_id, project=self._project))

    async def set(self, server: str, metadata: Mapping[str, str | None]) -> Server:
        """Change the metadata that are given, and keep the others; None takes one away. The server need not be idle.

        Its guest sees them when its config drive is made anew.

        Raises:
            NotFound: there is no such server, or nothing to take away.
        """
        check_metadata({key: value for key, value in metadata.items() if value is not None})
        server_id, _ = await identify(self._connection, server)
        if None in metadata.values():
            # Here, since the call may be done twice: the second time nothing is there any more.
            _check_known(await self.show(server_id), metadata)
        change = ServerMetadata(ref=server_id, project=self._project, metadata=dict(metadata))
        return await self._connection.call(SET_SERVER, change)

    async def events(self, server: str) -> Sequence[ServerEvent]:
        """All steps of all its operations that the database remembers, oldest first."""
        server_id, _ = await identify(self._connection, server)
        return await self._connection.call(LIST_EVENTS, Ref(ref=server_id, project=self._project))

    async def console_log(self, server: str, *, max_bytes: int = 100_000) -> str:
        """The end of what its guest wrote to the serial console, as its host has it.

        Raises:
            InvalidState: it is on no host.
            Unavailable: its host does not answer.
        """
        shown = await self.show(server)
        if shown.host_id is None:
            raise InvalidState(
                f"server {shown.name} is on no host, so it has no console", field="server", value=shown.id
            )
        host = shown.host or shown.host_id
        return await self._connection.call(
            CONSOLE_LOG,
            ConsoleRequest(server_id=shown.id, max_bytes=max_bytes),
            queue=host_queue(shown.host_id),
            worker=f"worker of host {host}",
            remedy=f"see whether {host} is up: hostler host show {host}",
            patience=self._connection.settings.timeouts.host_answer,
        )

    async def operation(self, server: str) -> Operation:
        """The operation that runs on a server, or else the last that did.

        Raises:
            NotFound: there is no such server, or Temporal remembers no operation on it.
        """
        server_id, _ = await identify(self._connection, server)
        return await latest(self._connection, server_id)


def _check_known(server: Server, metadata: Mapping[str, str | None]) -> None:
    for key, value in metadata.items():
        if value is None and key not in server.metadata:
            raise NotFound(
                f"server {server.name} has no property {key!r}",
                field="metadata",
                value=key,
                remedy=f"it has: {', '.join(sorted(server.metadata)) or 'none'}",
            )


def _base64(user_data: bytes | str | None) -> str | None:
    return base64.b64encode(user_data).decode() if isinstance(user_data, bytes) else user_data
