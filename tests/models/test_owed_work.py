"""Owed work keeps its order."""

from datetime import timedelta

from sqlmodel import col, select

from models import Database, OwedWork, enter_owed, now
from tests.activities.given import uuid
from tests.rows import a_host, add


def owed(host_id: str, minutes_ago: int) -> OwedWork:
    """Written by a control worker whose clock is so late."""
    return OwedWork(
        id=uuid(),
        host_id=host_id,
        activity="destroy_guest",
        argument={},
        reason="away",
        created_at=now() - timedelta(minutes=minutes_ago),
    )


def test_what_is_entered_later_comes_later_whatever_the_clocks_of_control_workers_say(database: Database) -> None:
    host, other = a_host(name="one"), a_host(name="other")
    add(database, host, other)
    entered: list[str] = []
    for minutes_ago in (0, 2, 1, 2):
        work = owed(host.id, minutes_ago)
        entered.append(work.id)
        with database.write() as session:
            enter_owed(session, work)
    of_other = owed(other.id, 5)
    written = of_other.created_at
    with database.write() as session:
        enter_owed(session, of_other)

    with database.read() as session:
        rows = session.exec(select(OwedWork).order_by(col(OwedWork.created_at))).all()
    assert [row.id for row in rows if row.host_id == host.id] == entered
    assert [row.created_at for row in rows if row.host_id == other.id] == [written]
