"""Owed work keeps its order."""

from datetime import timedelta

from sqlmodel import col, select

from activities.interfaces.guests import Guests
from models import Database, OwedWork, enter_owed, now, owes
from tests.activities.given import uuid
from tests.rows import a_host, add


def owed(host_id: str, minutes_ago: int, activity: str = "bring_back_claim", server_id: str | None = None) -> OwedWork:
    """Written by a control worker whose clock is so late."""
    return OwedWork(
        id=uuid(),
        host_id=host_id,
        server_id=server_id,
        activity=activity,
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


def test_it_is_known_what_a_host_owes_of_a_server(database: Database) -> None:
    host, other, mine = a_host(name="one"), a_host(name="other"), uuid()
    add(database, host, other)
    with database.write() as session:
        enter_owed(session, owed(host.id, 0, "stop_guest", mine))

    with database.read() as session:
        assert owes(session, mine, host.id)
        assert owes(session, mine, host.id, "stop_guest")
        assert not owes(session, mine, host.id, "start_guest")
        assert not owes(session, mine, other.id)
        assert not owes(session, uuid(), host.id)


def test_a_guest_that_is_to_be_removed_is_not_started_before(database: Database) -> None:
    """It may run elsewhere by then."""
    host, other, mine, another = a_host(name="one"), a_host(name="other"), uuid(), uuid()
    add(database, host, other)
    start, destroy = Guests.start_guest.__name__, Guests.destroy_guest.__name__
    owing = [(host, "bring_back_guest", mine), (host, start, mine), (host, start, another), (other, start, mine)]
    for where, activity, server_id in [*owing, (host, destroy, mine)]:
        with database.write() as session:
            enter_owed(session, owed(where.id, 0, activity, server_id))

    with database.read() as session:
        rows = session.exec(select(OwedWork).order_by(col(OwedWork.created_at))).all()
    left = [(row.activity, row.server_id) for row in rows if row.host_id == host.id]
    assert left == [("bring_back_guest", mine), (start, another), (destroy, mine)]
    assert [(row.activity, row.server_id) for row in rows if row.host_id == other.id] == [(start, mine)]
