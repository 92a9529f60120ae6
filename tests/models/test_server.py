"""A server's row: what others may call it, and what must not be seen."""

from sqlalchemy import inspect

from models import Database, Server
from tests.rows import a_server, add


def test_its_metadata_is_called_metadata_in_the_database(database: Database) -> None:
    server = a_server(metadata_={"role": "db"})
    add(database, server)
    assert "metadata" in {column["name"] for column in inspect(database.engine).get_columns("server")}
    with database.read() as session:
        assert session.get_one(Server, server.id).metadata_ == {"role": "db"}


def test_user_data_is_not_printed() -> None:
    assert "c2VjcmV0" not in repr(a_server(user_data="c2VjcmV0"))


def test_a_change_leaves_its_time(database: Database) -> None:
    server = a_server()
    add(database, server)
    with database.write() as session:
        session.get_one(Server, server.id).name = "renamed"
    with database.read() as session:
        found = session.get_one(Server, server.id)
        assert found.updated_at > found.created_at
