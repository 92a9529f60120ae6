"""A host's generation tells that something about it changed."""

from models import Database, Host, bump_generation
from tests.rows import a_host, add


def test_a_change_is_one_generation(database: Database) -> None:
    host, other = a_host(), a_host()
    add(database, host, other)
    assert database.run(lambda session: bump_generation(session, host.id))
    with database.read() as session:
        assert session.get_one(Host, host.id).generation == 1
        assert session.get_one(Host, other.id).generation == 0


def test_there_is_no_generation_of_a_host_that_is_not_there(database: Database) -> None:
    assert not database.run(lambda session: bump_generation(session, "nowhere"))


def test_a_row_in_hand_sees_its_new_generation(database: Database) -> None:
    host = a_host()
    add(database, host)
    with database.write() as session:
        row = session.get_one(Host, host.id)
        row.enabled = False
        bump_generation(session, host.id)
        assert row.generation == 1
    with database.read() as session:
        found = session.get_one(Host, host.id)
        assert (found.enabled, found.generation) == (False, 1)


def test_two_hosts_may_have_one_name(database: Database) -> None:
    add(database, a_host(name="alpha"), a_host(name="alpha"))
