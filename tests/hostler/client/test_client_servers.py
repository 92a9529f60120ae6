"""`client.servers`: each operation sends the request that its arguments make, and the same one when it is repeated."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from hostler import Client, InvalidRequest, OnFailure, Operation
from hostler.client.servers import Servers
from hostler.contract.names import is_uuid
from hostler.contract.servers import (
    BackupRequest,
    ConfirmResizeRequest,
    EvacuateRequest,
    LiveMigrateRequest,
    MigrateRequest,
    OperationName,
    OperationRequest,
    RebootRequest,
    RebuildRequest,
    ResizeRequest,
    RevertResizeRequest,
    ShelveOffloadRequest,
    ShelveRequest,
    SnapshotRequest,
    StopRequest,
    TimeoutAction,
    UnshelveRequest,
)
from tests.hostler.peers import cloud
from tests.hostler.sent import sent

IMAGE = "5b5c0f5e-0000-4000-8000-000000000001"
HOUR = timedelta(hours=1)
Operate = Callable[..., Awaitable[Operation]]

CALLS: list[tuple[Operate, tuple[str, ...], dict[str, Any], str, type[OperationRequest], dict[str, Any]]] = [
    (Servers.stop, (), {"timeout": HOUR}, "stop", StopRequest, {"timeout": HOUR}),
    (Servers.reboot, (), {"hard": True}, "reboot", RebootRequest, {"hard": True}),
    (
        Servers.snapshot,
        ("golden",),
        {"image_id": IMAGE, "quiesce": True},
        "snapshot",
        SnapshotRequest,
        {"name": "golden", "image_id": IMAGE, "quiesce": True},
    ),
    (
        Servers.backup,
        ("tuesday",),
        {"backup_type": "daily", "rotation": 7, "image_id": IMAGE},
        "backup",
        BackupRequest,
        {"name": "tuesday", "image_id": IMAGE, "backup_type": "daily", "rotation": 7},
    ),
    (Servers.rebuild, (), {}, "rebuild", RebuildRequest, {}),
    (
        Servers.rebuild,
        (),
        {
            "image": "demo",
            "key_name": "",
            "user_data": b"#!/bin/sh\n",
            "admin_password": "hunter2",
            "preserve_ephemeral": True,
        },
        "rebuild",
        RebuildRequest,
        {
            "image": "demo",
            "key_name": "",
            "user_data": "IyEvYmluL3NoCg==",
            "admin_password": "hunter2",
            "preserve_ephemeral": True,
        },
    ),
    (Servers.rebuild, (), {"user_data": "aGVsbG8="}, "rebuild", RebuildRequest, {"user_data": "aGVsbG8="}),
    (Servers.rebuild, (), {"user_data": b""}, "rebuild", RebuildRequest, {"user_data": ""}),
    (Servers.shelve, (), {}, "shelve", ShelveRequest, {}),
    (Servers.shelve, (), {"offload_after": HOUR}, "shelve", ShelveRequest, {"offload_after": HOUR}),
    (Servers.shelve_offload, (), {}, "shelve-offload", ShelveOffloadRequest, {}),
    (
        Servers.unshelve,
        (),
        {"availability_zone": "nova", "host": "node-2", "max_attempts": 2},
        "unshelve",
        UnshelveRequest,
        {"availability_zone": "nova", "host": "node-2", "max_attempts": 2},
    ),
    (
        Servers.resize,
        ("small",),
        {"max_attempts": 2, "confirm_after": HOUR},
        "resize",
        ResizeRequest,
        {"flavor": "small", "max_attempts": 2, "confirm_after": HOUR},
    ),
    (
        Servers.migrate,
        (),
        {"host": "node-2", "max_attempts": 1, "confirm_after": timedelta(0)},
        "migrate",
        MigrateRequest,
        {"host": "node-2", "max_attempts": 1, "confirm_after": timedelta(0)},
    ),
    (
        Servers.live_migrate,
        (),
        {
            "host": "node-2",
            "max_attempts": 1,
            "completion_timeout": HOUR,
            "timeout_action": TimeoutAction.FORCE_COMPLETE,
        },
        "live-migrate",
        LiveMigrateRequest,
        {
            "host": "node-2",
            "max_attempts": 1,
            "completion_timeout": HOUR,
            "timeout_action": TimeoutAction.FORCE_COMPLETE,
        },
    ),
    (
        Servers.evacuate,
        (),
        {"host": "node-2", "max_attempts": 1},
        "evacuate",
        EvacuateRequest,
        {"host": "node-2", "max_attempts": 1},
    ),
    (Servers.confirm_resize, (), {}, "confirm-resize", ConfirmResizeRequest, {}),
    (Servers.revert_resize, (), {}, "revert-resize", RevertResizeRequest, {}),
]


@pytest.fixture
async def client(temporal_server: str, namespace: str) -> AsyncIterator[Client]:
    """A client of a cloud whose workers run."""
    async with (
        cloud(temporal_server, namespace),
        await Client.connect(address=temporal_server, namespace=namespace, project="ours") as client,
    ):
        yield client


async def test_each_operation_sends_what_it_was_given(client: Client, temporal_server: str, namespace: str) -> None:
    for operate, names, given, operation, kind, expected in CALLS:
        server_id, request_id = str(uuid4()), str(uuid4())

        begun = await operate(
            client.servers, server_id, *names, **given, on_failure=OnFailure.HOLD, request_id=request_id
        )

        assert (begun.operation, begun.server_id) == (OperationName(operation), server_id)
        assert await sent(temporal_server, namespace, server_id, kind) == (
            operation,
            kind(server_id=server_id, request_id=request_id, project="ours", on_failure=OnFailure.HOLD, **expected),
        )
        assert (await begun.result()).id == server_id


async def test_an_operation_on_an_image_tells_its_uuid(client: Client, temporal_server: str, namespace: str) -> None:
    for operate, names, given, _, kind, _ in CALLS:
        if not issubclass(kind, SnapshotRequest):
            continue
        server_id = str(uuid4())
        begun = await operate(client.servers, server_id, *names, **(given | {"image_id": None}))
        assert begun.image_id is not None
        assert is_uuid(begun.image_id)
        _, request = await sent(temporal_server, namespace, server_id, kind)
        assert request.image_id == begun.image_id
    assert (await client.servers.snapshot(str(uuid4()), "golden", image_id=IMAGE)).image_id == IMAGE
    assert (await client.servers.shelve(str(uuid4()))).image_id is None


async def test_a_repeated_snapshot_is_the_same_image(client: Client) -> None:
    server_id, other = str(uuid4()), str(uuid4())

    first = await client.servers.snapshot(server_id, "golden", request_id="nightly")
    again = await client.servers.snapshot(server_id, "golden", request_id="nightly")

    assert (again.run_id, again.image_id) == (first.run_id, first.image_id)
    assert (await client.servers.snapshot(other, "golden", request_id="nightly")).image_id != first.image_id
    assert (await client.servers.snapshot(other, "golden")).image_id != first.image_id


async def test_what_cannot_succeed_is_refused_before_anything_is_sent(client: Client) -> None:
    server_id = str(uuid4())
    for field, call in (
        ("name", client.servers.snapshot(server_id, "")),
        ("image_id", client.servers.snapshot(server_id, "golden", image_id="golden")),
        ("rotation", client.servers.backup(server_id, "monday", backup_type="daily", rotation=-1)),
        ("admin_password", client.servers.rebuild(server_id, admin_password="")),
        ("offload_after", client.servers.shelve(server_id, offload_after=timedelta(-1))),
        ("host", client.servers.unshelve(server_id, host="")),
        ("flavor", client.servers.resize(server_id, "")),
        ("confirm_after", client.servers.migrate(server_id, confirm_after=timedelta(days=1000))),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert caught.value.detail.field == field
        assert caught.value.remedy
