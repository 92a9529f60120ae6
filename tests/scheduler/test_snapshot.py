"""The picture of the hosts is as new as it is asked to be, and reads no more than it must."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlmodel import Session

import scheduler.snapshot
from models import Database, Host, bump_generation
from scheduler.host_state import HostState, read_states
from scheduler.snapshot import Snapshot
from tests.rows import a_host, add


@pytest.fixture
def hosts(database: Database) -> list[Host]:
    hosts = [a_host(name=f"h{number}") for number in range(10)]
    add(database, *hosts)
    return hosts


@pytest.fixture
def snapshot(database: Database, hosts: list[Host]) -> Snapshot:
    snapshot = Snapshot(database)
    snapshot.refresh(time.monotonic())
    return snapshot


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many hosts each reading asked for; None is all."""
    seen: list[int | None] = []

    def spy(session: Session, host_ids: list[str] | None = None) -> list[HostState]:
        seen.append(None if host_ids is None else len(host_ids))
        return read_states(session, host_ids)

    monkeypatch.setattr(scheduler.snapshot, "read_states", spy)
    return seen


def disable(database: Database, host: Host) -> None:
    with database.write() as session:
        bump_generation(session, host.id)
        session.get_one(Host, host.id).enabled = False


def disabled(snapshot: Snapshot) -> set[str]:
    return {host.name for host in snapshot.hosts() if not host.enabled}


def test_a_picture_new_enough_is_not_taken_again(database: Database, snapshot: Snapshot, hosts: list[Host]) -> None:
    disable(database, hosts[3])
    snapshot.refresh(time.monotonic() - 60)
    assert disabled(snapshot) == set()


def test_a_picture_too_old_is(database: Database, snapshot: Snapshot, hosts: list[Host]) -> None:
    disable(database, hosts[3])
    snapshot.refresh(time.monotonic())
    assert disabled(snapshot) == {"h3"}


def test_only_what_changed_is_read_again(
    database: Database, snapshot: Snapshot, hosts: list[Host], reads: list[int | None]
) -> None:
    disable(database, hosts[3])
    snapshot.refresh(time.monotonic())
    snapshot.refresh(time.monotonic())
    assert reads == [1]


def test_much_change_is_one_long_read(
    database: Database, snapshot: Snapshot, hosts: list[Host], reads: list[int | None]
) -> None:
    for host in hosts[:5]:
        disable(database, host)
    snapshot.refresh(time.monotonic())
    assert reads == [None]
    assert len(disabled(snapshot)) == 5


def test_new_hosts_appear_and_removed_ones_go(database: Database, snapshot: Snapshot, hosts: list[Host]) -> None:
    add(database, a_host(name="new"))
    with database.write() as session:
        session.delete(session.get_one(Host, hosts[0].id))
        bump_generation(session, hosts[1].id)
    snapshot.refresh(time.monotonic())
    assert {host.name for host in snapshot.hosts()} == {"new", *(f"h{number}" for number in range(1, 10))}


def test_what_is_put_in_stays_unless_it_is_older(snapshot: Snapshot) -> None:
    (state,) = [host for host in snapshot.hosts() if host.name == "h0"]
    snapshot.put([replace(state, generation=5, free_ram_mib=1)])
    snapshot.put([replace(state, generation=4, free_ram_mib=2)])
    (now,) = snapshot.get([state.id])
    assert now.free_ram_mib == 1


def test_hosts_are_given_in_the_order_asked_for(snapshot: Snapshot, hosts: list[Host]) -> None:
    wanted = [hosts[4].id, "unknown", hosts[2].id]
    assert [host.name for host in snapshot.get(wanted)] == ["h4", "h2"]


def test_threads_that_ask_at_once_share_a_reading(
    database: Database, hosts: list[Host], reads: list[int | None]
) -> None:
    snapshot = Snapshot(database)
    together = threading.Barrier(8)
    since = time.monotonic()

    def ask() -> int:
        together.wait()
        snapshot.refresh(since)
        return len(snapshot.hosts())

    with ThreadPoolExecutor(8) as pool:
        assert [each.result() for each in [pool.submit(ask) for _ in range(8)]] == [10] * 8
    assert reads == [None]
