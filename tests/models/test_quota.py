"""Quotas: limits of a project, and a use that is derived and so cannot drift."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import Session

from hostler.contract.states import VmState
from models import Database, Quota, Server, Volume, lock_quota, now, quota_use
from tests.rows import a_server, add


def test_a_project_without_limits_of_its_own_gets_the_defaults(database: Database) -> None:
    assert database.run(lambda session: lock_quota(session, "blue")) == Quota(project="blue")
    assert Quota(project="blue").servers == 100


def test_limits_that_were_set_stay(database: Database) -> None:
    add(database, Quota(project="blue", servers=7))
    assert database.run(lambda session: lock_quota(session, "blue")).servers == 7


def test_use_is_what_the_projects_rows_add_up_to(database: Database) -> None:
    add(
        database,
        a_server(project="blue", vcpus=2, ram_mib=2048),
        a_server(project="blue", vcpus=4, ram_mib=512),
        a_server(project="red", vcpus=64, ram_mib=65536),
        Volume(id="a", project="blue", size_gib=10),
        Volume(id="b", project="blue", size_gib=20),
    )
    with database.read() as session:
        use = quota_use(session, "blue")
    assert (use.servers, use.vcpus, use.ram_mib, use.volumes, use.volume_gib) == (2, 6, 2560, 2, 30)


def test_a_deleted_server_gives_its_quota_back(database: Database) -> None:
    server = a_server(project="blue")
    add(database, server)

    def delete(session: Session) -> None:
        row = session.get_one(Server, server.id)
        row.vm_state, row.deleted_at = VmState.DELETED, now()

    database.run(delete)
    with database.read() as session:
        assert quota_use(session, "blue").servers == 0


@pytest.mark.parametrize("exists", [False, True])
def test_requests_at_once_never_share_the_last_place(database: Database, exists: bool) -> None:
    if exists:
        add(database, Quota(project="blue"))

    def ask() -> bool:
        def work(session: Session) -> bool:
            limits = lock_quota(session, "blue")
            if quota_use(session, "blue").ram_mib + 100 * 1024 > limits.ram_mib:
                return False
            session.add(a_server(project="blue", ram_mib=100 * 1024))
            return True

        return database.run(work)

    with ThreadPoolExecutor(12) as pool:
        answers = [asked.result() for asked in [pool.submit(ask) for _ in range(12)]]
    assert answers.count(True) == 5  # of 512 GiB
