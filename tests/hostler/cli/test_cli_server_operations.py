"""`hostler server snapshot`, `backup`, `rebuild`, `shelve`, `resize`, `migrate` and what comes after them."""

import asyncio
import base64
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from hostler.cli.app import app
from hostler.cli.exits import Exit
from hostler.cli.server_images import _password
from hostler.contract.names import is_uuid
from hostler.contract.servers import (
    BackupRequest,
    BootRequest,
    EvacuateRequest,
    LiveMigrateRequest,
    MigrateRequest,
    MigrationKind,
    MigrationStatus,
    OnFailure,
    OperationRequest,
    RebuildRequest,
    ResizeRequest,
    Server,
    ShelveRequest,
    SnapshotRequest,
    TimeoutAction,
    UnshelveRequest,
)
from hostler.contract.states import TaskState, VmState
from tests.hostler.cli.conftest import Hostler
from tests.hostler.peers import MOVED, Catalogue, server_of
from tests.hostler.sent import sent

IMAGE = "5b5c0f5e-0000-4000-8000-000000000001"
HOUR = timedelta(hours=1)
Sent = Callable[[str, type[Any]], Coroutine[Any, Any, tuple[str, Any]]]


@pytest.fixture
def last(temporal_server: str, namespace: str) -> Sent:
    """The name and the request of the last operation on a server."""

    async def read(server_id: str, kind: type[Any]) -> tuple[str, Any]:
        return await sent(temporal_server, namespace, server_id, kind)

    return read


def server(name: str = "web", **fields: Any) -> Server:
    """A server for the catalogue."""
    server_id = str(uuid4())
    request = BootRequest(server_id=server_id, request_id=server_id, name=name, flavor="tiny", image="demo")
    return server_of(request).model_copy(update=fields)


def given(request: OperationRequest) -> dict[str, Any]:
    """What was asked for beyond the defaults."""
    return request.model_dump(exclude_defaults=True, exclude={"server_id", "request_id"})


@pytest.mark.parametrize(
    ("words", "operation", "kind", "expected"),
    [
        ("snapshot web --name golden --quiesce", "snapshot", SnapshotRequest, {"name": "golden", "quiesce": True}),
        (
            "backup web --name monday --type daily --rotate 7",
            "backup",
            BackupRequest,
            {"name": "monday", "backup_type": "daily", "rotation": 7},
        ),
        ("rebuild web", "rebuild", RebuildRequest, {}),
        (
            "rebuild web --image demo --key-name mine --preserve-ephemeral",
            "rebuild",
            RebuildRequest,
            {"image": "demo", "key_name": "mine", "preserve_ephemeral": True},
        ),
        ("rebuild web --no-key-name --no-user-data", "rebuild", RebuildRequest, {"key_name": "", "user_data": ""}),
        ("shelve web", "shelve", ShelveRequest, {}),
        ("shelve web --offload-after 3600", "shelve", ShelveRequest, {"offload_after": HOUR}),
        ("shelve web --offload-after PT1H", "shelve", ShelveRequest, {"offload_after": HOUR}),
        ("shelve web --offload-after 0", "shelve", ShelveRequest, {"offload_after": timedelta(0)}),
        ("shelve-offload web", "shelve-offload", OperationRequest, {}),
        (
            "unshelve web --availability-zone nova --host node-1 --max-attempts 2",
            "unshelve",
            UnshelveRequest,
            {"availability_zone": "nova", "host": "node-1", "max_attempts": 2},
        ),
        (
            "resize web --flavor small --confirm-after PT1H --max-attempts 1",
            "resize",
            ResizeRequest,
            {"flavor": "small", "confirm_after": HOUR, "max_attempts": 1},
        ),
        (
            "migrate web --host node-2 --confirm-after 0",
            "migrate",
            MigrateRequest,
            {"host": "node-2", "confirm_after": timedelta(0)},
        ),
        ("live-migrate web", "live-migrate", LiveMigrateRequest, {}),
        (
            "live-migrate web --host node-2 --completion-timeout PT1H --timeout-action force-complete --max-attempts 2",
            "live-migrate",
            LiveMigrateRequest,
            {
                "host": "node-2",
                "completion_timeout": HOUR,
                "timeout_action": TimeoutAction.FORCE_COMPLETE,
                "max_attempts": 2,
            },
        ),
        (
            "evacuate web --host node-2 --max-attempts 2",
            "evacuate",
            EvacuateRequest,
            {"host": "node-2", "max_attempts": 2},
        ),
        ("confirm web", "confirm-resize", OperationRequest, {}),
        ("revert web", "revert-resize", OperationRequest, {}),
    ],
)
async def test_each_command_sends_what_it_was_given(
    words: str,
    operation: str,
    kind: type[OperationRequest],
    expected: dict[str, Any],
    hostler: Hostler,
    catalogue: Catalogue,
    last: Sent,
) -> None:
    catalogue.servers = [server("web")]

    done = await hostler("server", *words.split(), "--on-failure", "hold", "--wait")

    assert done.exit_code == Exit.DONE, done.output
    assert f"{operation} web: spawn done" in done.stderr
    name, request = await last(catalogue.servers[0].id, kind)
    assert name == operation
    asked = given(request)
    asked.pop("image_id", None)
    assert asked == expected | {"on_failure": OnFailure.HOLD}


async def test_a_snapshot_prints_its_images_uuid_for_scripts(
    hostler: Hostler, catalogue: Catalogue, last: Sent
) -> None:
    for words in (("snapshot",), ("backup", "--type", "daily", "--rotate", "7")):
        server_id = str(uuid4())
        done = await hostler("server", *words, server_id, "--name", "golden")
        assert done.exit_code == Exit.DONE, done.output
        printed = done.stdout.rstrip("\n")
        assert is_uuid(printed)
        assert (await last(server_id, SnapshotRequest))[1].image_id == printed
        assert f"{words[0]} of {server_id} accepted" in done.stderr
        again = await hostler("server", *words, str(uuid4()), "--name", "golden", "--id", IMAGE, "--wait")
        assert again.stdout == f"{IMAGE}\n"


async def test_operations_take_several_servers(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web"), server("db")]
    moves = ("migrate", "live-migrate", "evacuate", "confirm", "revert")
    for command in ("rebuild", "shelve", "shelve-offload", "unshelve", *moves):
        done = await hostler("server", command, "web", "db", "--wait")
        assert done.exit_code == Exit.DONE, done.output
        for name in ("web", "db"):
            assert f"{name}: spawn done" in done.stderr


async def test_a_rebuild_reads_secrets_where_nobody_sees_them(
    temporal_server: str, namespace: str, tmp_path: Path, catalogue: Catalogue, last: Sent
) -> None:
    server_id, data = str(uuid4()), tmp_path / "user-data"
    data.write_bytes(b"#!/bin/sh\n")
    runner = CliRunner(
        env={
            "HOSTLER_TEMPORAL__ADDRESS": temporal_server,
            "HOSTLER_TEMPORAL__NAMESPACE": namespace,
            "HOSTLER_STATE_DIR": str(tmp_path),
        }
    )
    words = ["server", "rebuild", server_id, "--user-data", str(data), "--password-prompt", "--wait"]

    done = await asyncio.to_thread(runner.invoke, app, words, input=" hunter 2\n")

    assert done.exit_code == Exit.DONE, done.output
    assert "hunter" not in done.output
    _, request = await last(server_id, RebuildRequest)
    assert (request.admin_password, base64.b64decode(request.user_data)) == (" hunter 2", b"#!/bin/sh\n")
    refused = await asyncio.to_thread(runner.invoke, app, words, input="")
    assert refused.exit_code == Exit.INVALID
    assert "admin_password: must have 1 to 255 characters" in refused.stderr


def test_on_a_terminal_a_password_is_asked_for_twice_and_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, bool]]] = []

    def prompt(text: str, **how: bool) -> str:
        asked.append((text, how))
        return "hunter2"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", prompt)
    assert _password() == "hunter2"
    assert asked == [("New password", {"hide_input": True, "confirmation_prompt": True, "err": True})]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("snapshot web", "--name"),
        ("snapshot --name golden", "SERVER"),
        ("snapshot web db --name golden", "unexpected extra argument"),
        ("snapshot web --name golden --id golden", "image_id: is not a UUID"),
        ("backup web --name monday", "--type"),
        ("backup web --name monday --type daily", "--rotate"),
        ("backup web --name monday --type daily --rotate some", "--rotate"),
        ("backup web --name monday --type daily --rotate -1", "rotation: must be from 0"),
        ("rebuild web --key-name a --no-key-name", "--key-name and --no-key-name contradict each other"),
        (
            "rebuild web --user-data /etc/hostname --no-user-data",
            "--user-data and --no-user-data contradict each other",
        ),
        ("rebuild web --user-data /not/there", "/not/there"),
        ("shelve web --offload-after soon", "--offload-after: 'soon' is not a duration"),
        ("shelve web --offload-after nan", "give a number of seconds, or ISO 8601"),
        ("shelve web --offload-after -5", "offload_after: must be from 0"),
        ("unshelve web --max-attempts 0", "max_attempts: must be from 1"),
        ("resize web", "--flavor"),
        ("resize web --flavor small --confirm-after P9Z", "--confirm-after: 'P9Z' is not a duration"),
        ("resize web --flavor small --confirm-after P400D", "confirm_after: must be from 0"),
        ("migrate web --confirm-after never", "--confirm-after"),
        ("migrate web --flavor small", "--flavor"),
        ("confirm", "SERVER"),
        ("revert web --on-failure maybe", "--on-failure"),
    ],
)
async def test_wrong_words_get_clear_answers(
    words: str, complaint: str, hostler: Hostler, catalogue: Catalogue
) -> None:
    catalogue.servers = [server("web")]
    refused = await hostler("server", *words.split())
    assert (refused.exit_code, refused.stdout) == (Exit.INVALID, ""), refused.output
    assert complaint in refused.stderr


async def test_a_server_that_moved_is_shown_with_what_to_decide(hostler: Hostler, catalogue: Catalogue) -> None:
    until = datetime(2026, 7, 2, 8, 30, tzinfo=UTC)
    catalogue.servers = [
        server("web", status="VERIFY_RESIZE", vm_state=VmState.RESIZED, migration=MOVED),
        server(
            "db",
            status="VERIFY_RESIZE",
            vm_state=VmState.RESIZED,
            migration=MOVED.model_copy(
                update={"kind": MigrationKind.MIGRATION, "new_flavor": "tiny", "confirms_at": until}
            ),
        ),
        server(
            "gone",
            status="VERIFY_RESIZE",
            vm_state=VmState.RESIZED,
            migration=MOVED.model_copy(
                update={"kind": MigrationKind.EVACUATION, "status": MigrationStatus.MIGRATING, "new_flavor": "tiny"}
            ),
        ),
    ]

    web = (await hostler("server", "show", "web")).stdout
    assert "resize node-1 → node-2, tiny → small, waits to be confirmed or reverted. Decide:" in web
    assert f"hostler server confirm {catalogue.servers[0].id}" in web
    assert f"hostler server revert {catalogue.servers[0].id}  # back to node-1, tiny;" in web
    gone = (await hostler("server", "show", "gone")).stdout
    assert "evacuation node-1" in gone
    assert "Decide" not in gone
    db = (await hostler("server", "show", "db")).stdout
    assert "migration node-1 → node-2, confirms itself at 2026-07-02 08:30:00. Decide:" in db
    listed = await hostler("server", "list", "-f", "value", "-c", "name", "-c", "migration")
    assert listed.stdout.startswith("web resize node-1 → node-2")


async def test_a_move_that_did_not_finish_can_be_neither_confirmed_nor_reverted(
    hostler: Hostler, catalogue: Catalogue
) -> None:
    lost = MOVED.model_copy(update={"status": MigrationStatus.MIGRATING, "target": None})
    catalogue.servers = [server("web", migration=lost)]
    shown = (await hostler("server", "show", "web")).stdout
    assert "resize node-1 → ?, tiny → small, migrating" in shown
    assert "Decide" not in shown


@pytest.mark.parametrize(
    ("kind", "task", "target", "line"),
    [
        (MigrationKind.LIVE_MIGRATION, TaskState.MIGRATING, "node-2", "live-migration node-1 → node-2, migrating"),
        (MigrationKind.EVACUATION, TaskState.REBUILDING, None, "evacuation node-1 → ?, migrating"),
    ],
)
async def test_a_move_under_way_is_shown_with_where_it_goes_and_nothing_to_decide(
    hostler: Hostler, catalogue: Catalogue, kind: MigrationKind, task: TaskState, target: str | None, line: str
) -> None:
    moving = MOVED.model_copy(
        update={"kind": kind, "status": MigrationStatus.MIGRATING, "target": target, "new_flavor": MOVED.old_flavor}
    )
    catalogue.servers = [server("web", task_state=task, migration=moving)]
    picked = await hostler("server", "show", "web", "-f", "value", "-c", "migration")
    assert picked.stdout == f"{line}\n"
    assert "Decide" not in (await hostler("server", "show", "web")).stdout


async def test_who_waited_for_a_resize_is_told_what_comes_next(hostler: Hostler, catalogue: Catalogue) -> None:
    catalogue.servers = [server("web")]
    done = await hostler("server", "resize", "web", "--flavor", "small", "--wait")
    assert done.exit_code == Exit.DONE, done.output
    assert done.stdout == ""
    assert "web: resize node-1 → node-2, tiny → small, waits to be confirmed or reverted. Decide:" in done.stderr
    assert "hostler server confirm web" in done.stderr
    assert "hostler server revert web" in done.stderr


async def test_a_shelved_server_is_shown_with_its_image(hostler: Hostler, catalogue: Catalogue) -> None:
    at = datetime(2026, 7, 2, 8, 30, tzinfo=UTC)
    catalogue.servers = [server("web", vm_state=VmState.SHELVED_OFFLOADED, shelved_at=at, shelved_image_id=IMAGE)]
    shown = await hostler("server", "show", "web", "-f", "value", "-c", "shelved", "-c", "shelved_image")
    assert shown.stdout.splitlines() == ["2026-07-02 08:30:00", IMAGE]
