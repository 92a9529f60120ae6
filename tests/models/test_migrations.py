"""A control worker of the release before goes on working while the database is already the next one's.

So each migration only adds, and what it adds may be left out: old code neither reads nor writes it.
"""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from models import Database
from models.schema import _config

SCRIPTS = ScriptDirectory.from_config(_config())
STEPS = [(script.down_revision, script.revision) for script in SCRIPTS.walk_revisions() if script.down_revision]

KEY_PAIR = text("INSERT INTO key_pair (project, name, public_key, fingerprint) VALUES (:project, 'alice', :key, '')")
SERVER = text(
    "INSERT INTO server (id, project, name, vm_state, power_state, flavor, flavor_id, flavor_name, vcpus, ram_mib, "
    "key_name, metadata, config_drive, request_fingerprint, created_at, updated_at, deleted_at) "
    "VALUES (:id, :project, :id, 'active', 'running', '{}', '', '', 1, 1, :key, '{}', true, '', :now, :now, :deleted)"
)

Columns = dict[tuple[str, str], dict[str, Any]]


def migrate(connection: Connection, revision: str) -> Columns:
    """Every column of every table at the revision."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    found = inspect(connection)
    return {
        (table, column["name"]): dict(column)
        for table in found.get_table_names()
        for column in found.get_columns(table)
    }


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[f"{a}-{b}" for a, b in STEPS])
def test_a_migration_only_adds_what_may_be_left_out(before: str, after: str, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'hostler.db'}")
    with database.connect() as connection:
        old, new = migrate(connection, before), migrate(connection, after)
    database.close()

    tables = {table for table, _ in old}
    for (table, name), column in old.items():
        assert (table, name) in new, f"{table}.{name} is gone"
        kept = new[table, name]
        assert (str(kept["type"]), kept["nullable"]) == (str(column["type"]), column["nullable"])
    for (table, name), column in new.items():
        if table in tables and (table, name) not in old:
            assert column["nullable"] or column["default"] is not None, f"{table}.{name} must be filled by old code"


def test_networks_that_were_there_get_numbers_of_their_own_in_the_overlay(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'hostler.db'}")
    insert = text(
        "INSERT INTO network (id, name, project, cidr, gateway, dns, mtu) "
        "VALUES (:id, :id, 'blue', '10.0.0.0/24', '10.0.0.1', '[]', 1500)"
    )
    with database.connect() as connection:
        migrate(connection, "0003")
        for name in ("front", "back"):
            connection.execute(insert, {"id": name})
        migrate(connection, "0004")
        numbers = connection.execute(text("SELECT vni FROM network")).scalars().all()
    database.close()

    assert len(set(numbers)) == 2
    assert None not in numbers


def test_servers_that_were_there_keep_the_key_pairs_that_their_projects_have_under_those_names(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'hostler.db'}")
    values: dict[str, str | None] = {"now": "2026-01-01 00:00:00", "deleted": None}
    servers: dict[str, dict[str, str | None]] = {
        "with": {"project": "blue", "key": "alice"},
        "of another project": {"project": "red", "key": "alice"},
        "whose key pair is gone": {"project": "blue", "key": "bob"},
        "without": {"project": "blue", "key": None},
        "deleted": {"project": "blue", "key": "alice", "deleted": values["now"]},
    }
    with database.connect() as connection:
        migrate(connection, "0006")
        for project in ("blue", "red"):
            connection.execute(KEY_PAIR, {"project": project, "key": f"ssh-ed25519 {project}"})
        for name, server in servers.items():
            connection.execute(SERVER, values | server | {"id": name})
        migrate(connection, "0007")
        table = sa.table("server", sa.column("id", sa.String), sa.column("public_keys", sa.JSON))
        kept = {name: keys for name, keys in connection.execute(sa.select(table)) if keys is not None}
    database.close()

    assert kept == {"with": {"alice": "ssh-ed25519 blue"}, "of another project": {"alice": "ssh-ed25519 red"}}


def test_images_that_are_gone_already_are_known_as_deleted_where_a_server_may_stand_on_them(database_url: str) -> None:
    database = Database(database_url)
    values: dict[str, str | None] = {"now": "2026-01-01 00:00:00", "deleted": None, "key": None, "project": "blue"}
    image = text(
        "INSERT INTO image (id, name, project, status, disk_format, size_bytes, virtual_size_bytes, checksum, "
        "min_disk_gib, min_ram_mib, properties, created_at) "
        "VALUES ('there', 'there', 'blue', 'active', 'raw', 0, 0, '', 0, 0, '{}', '2026-01-01 00:00:00')"
    )
    device = text(
        "INSERT INTO block_device (id, server_id, position, kind, device, size_bytes, source_type, destination_type, "
        "bootable, delete_on_termination, image_id) "
        "VALUES (:id, :server, 0, 'root', 'vda', 1, 'image', 'local', true, true, :id)"
    )
    with database.connect() as connection:
        migrate(connection, "0007")
        connection.execute(image)
        for server in (
            {"id": "living"},
            {"id": "unshelved", "project": "red"},
            {"id": "gone", "deleted": values["now"]},
        ):
            connection.execute(SERVER, values | server)
        connection.execute(text("UPDATE server SET image_id = 'of ' || id"))
        connection.execute(text("UPDATE server SET image_id = 'there' WHERE id = 'unshelved'"))
        for image_id, server_id in (("of living", "living"), ("shelved", "unshelved"), ("lost", "gone")):
            connection.execute(device, {"id": image_id, "server": server_id})
        migrate(connection, "0008")
        known = connection.execute(text("SELECT id, project, checksum FROM deleted_image")).all()
    database.close()

    assert sorted(map(tuple, known)) == [("of living", "blue", ""), ("shelved", "red", "")]


def test_there_are_migrations_to_look_at() -> None:
    assert STEPS
