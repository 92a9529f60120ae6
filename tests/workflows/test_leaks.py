"""User data is in Temporal and the database encrypted only; the same search finds it where there is no key."""

import secrets

import pytest

from tests.leaks import Leaks, files, raw_records, readable_payloads, rows
from tests.workflows.conftest import StartCloud


@pytest.mark.parametrize("encrypted", [True, False], ids=["with a key", "without"])
async def test_user_data_is_found_only_where_there_is_no_key(encrypted: bool, start_cloud: StartCloud) -> None:
    secret = secrets.token_hex(20).encode()
    leaks = Leaks({"user data": secret})
    cloud = await start_cloud(encrypted=encrypted)
    await cloud.booted(user_data=b"password: " + secret)
    readable: list[str] = []
    async for place, message in raw_records(cloud.temporal):
        leaks.look(place.partition(":")[0], message.SerializeToString())
        readable += readable_payloads(message)
    for _, row in rows(cloud.database):
        leaks.look("database", row)
    for file in files(cloud.settings.state_dir):
        leaks.look("file", file.read_bytes())
    assert {place for place, _ in leaks.found} == (set() if encrypted else {"server", "database", "file"})
    assert bool(readable) == (not encrypted)
