"""Columns behave alike on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from hostler.contract.guests import DiskKind
from hostler.contract.servers import DestinationType, SourceType
from hostler.contract.states import TaskState, VmState
from models import BlockDevice, Database, Server
from tests.rows import a_server, add


def read_back(database: Database, server: Server) -> Server:
    with database.read() as session:
        return session.get_one(Server, server.id)


def test_tables_are_named_after_their_class_in_snake_case() -> None:
    assert BlockDevice.metadata.tables.keys() >= {"block_device", "server_event", "owed_work", "server"}


def test_datetimes_come_back_aware_and_in_utc(database: Database) -> None:
    noon_in_berlin = datetime(2030, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    server = a_server(launched_at=noon_in_berlin)
    add(database, server)
    found = read_back(database, server)
    assert found.launched_at == datetime(2030, 7, 1, 10, tzinfo=UTC)
    assert found.launched_at.tzinfo is UTC
    assert found.created_at.tzinfo is UTC


def test_a_datetime_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="without a time zone"):
        add(database, a_server(launched_at=datetime(2030, 7, 1)))  # noqa: DTZ001


def test_enumerations_are_text_in_the_database_and_members_in_python(database: Database) -> None:
    server = a_server(vm_state=VmState.ACTIVE, task_state=TaskState.REBOOTING)
    add(database, server)
    found = read_back(database, server)
    assert (found.vm_state, found.task_state) == (VmState.ACTIVE, TaskState.REBOOTING)
    assert isinstance(found.vm_state, VmState)
    with database.read() as session:
        assert session.execute(text("SELECT vm_state, task_state FROM server")).one() == ("active", "rebooting")


def test_no_json_is_null(database: Database) -> None:
    add(database, a_server(fault=None), a_server(fault={"code": "BuildFailed"}))
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM server WHERE fault IS NULL")).scalar_one() == 1


def test_disks_may_be_larger_than_32_bits_can_count(database: Database) -> None:
    server = a_server()
    add(database, server)
    disk = BlockDevice(
        id="a-disk",
        server_id=server.id,
        position=0,
        kind=DiskKind.ROOT,
        device="vda",
        size_bytes=2**41,
        source_type=SourceType.IMAGE,
        destination_type=DestinationType.LOCAL,
    )
    add(database, disk)
    with database.read() as session:
        assert session.get_one(BlockDevice, "a-disk").size_bytes == 2**41
