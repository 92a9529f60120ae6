"""A step has one place in the history of its run."""

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from hostler.contract.servers import OperationName
from models import Database, ServerEvent
from tests.rows import add


def an_event(position: int, run_id: str = "run-1") -> ServerEvent:
    return ServerEvent(
        server_id="server", run_id=run_id, operation=OperationName.BOOT, position=position, step={"name": "schedule"}
    )


def test_writing_a_step_twice_is_noticed(database: Database) -> None:
    add(database, an_event(0))
    with pytest.raises(IntegrityError):
        add(database, an_event(0))


def test_events_are_numbered_as_they_come(database: Database) -> None:
    add(database, an_event(0))
    add(database, an_event(1))
    add(database, an_event(0, run_id="run-2"))
    with database.read() as session:
        events = session.exec(select(ServerEvent).order_by("id")).all()
    assert [(event.run_id, event.position) for event in events] == [("run-1", 0), ("run-1", 1), ("run-2", 0)]
