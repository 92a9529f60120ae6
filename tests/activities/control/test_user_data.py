"""User data in the database: encrypted, bound to its server, encrypted anew when keys change, gone with the server."""

from typing import Any

import pytest

from activities.control.user_data import encrypt_all, seal, unseal
from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.encryption import Key, Keys, sealed_with
from models import Database, Server
from tests.activities.given import uuid
from tests.rows import add

OLD, NEW = Key.generate("old"), Key.generate("new")
USER_DATA = "aHVudGVyMg=="


def stored(database: Database, server_id: str) -> str:
    with database.read() as session:
        row = session.get(Server, server_id)
        assert row is not None
        return str(row.user_data)


def server(database: Database, keys: Keys, user_data: str | None = USER_DATA) -> str:
    """A server whose row was written with these keys."""
    server_id = uuid()
    size: dict[str, Any] = {"flavor": {}, "flavor_id": uuid(), "flavor_name": "tiny", "vcpus": 1, "ram_mib": 128}
    add(database, Server(id=server_id, name="web", user_data=seal(keys, server_id, user_data), **size))
    return server_id


def test_it_is_encrypted_anew_with_the_first_key_whatever_it_was_before(database: Database) -> None:
    before = [Keys(), Keys([OLD]), Keys([NEW])]
    servers = [server(database, keys) for keys in before]
    none = server(database, Keys([OLD]), user_data=None)
    both = Keys([NEW, OLD])
    untouched = stored(database, servers[2])
    assert encrypt_all(database, both) == 2
    assert [sealed_with(stored(database, one)) for one in servers] == ["new", "new", "new"]
    assert [unseal(Keys([NEW]), one, stored(database, one)) for one in servers] == [USER_DATA] * 3
    assert stored(database, servers[2]) == untouched
    assert stored(database, none) == "None"
    assert encrypt_all(database, both) == 0


def test_in_another_servers_row_it_cannot_be_decrypted(database: Database) -> None:
    one, other = server(database, Keys([OLD])), server(database, Keys([OLD]))
    with pytest.raises(DecryptionFailed):
        unseal(Keys([OLD]), other, stored(database, one))


def test_a_key_that_is_missing_stops_it_before_anything_is_lost(database: Database) -> None:
    one = server(database, Keys([OLD]))
    before = stored(database, one)
    with pytest.raises(DecryptionFailed, match="key old is missing"):
        encrypt_all(database, Keys([NEW]))
    with pytest.raises(InvalidRequest, match="no encryption key"):
        encrypt_all(database, Keys())
    assert stored(database, one) == before
