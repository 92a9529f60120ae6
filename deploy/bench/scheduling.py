"""What it costs to find a host: ten thousand of them in SQLite, reservation included, and a hundred requests at once.

Beside it stands the cheapest transaction there is, one row written, on the same file and in turn with the scheduling:
no scheduler that keeps its word in a database can be faster. Run it by itself to see the figures as JSON.
"""

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

from sqlmodel import col, func, select

from hostler.contract.errors import NoValidHost
from hostler.settings import SchedulerSettings
from models import Allocation, Database, Host, KeyPair, Server, upgrade
from scheduler import Scheduler, SchedulingRequest

HOSTS = 10_000
REQUESTS = 400
AT_ONCE = 100
ZONES = 4
ROOMY, PLACES = 20, 5  # together the room for AT_ONCE servers
RAM_MIB = 1024


def run() -> dict[str, object]:
    """The figures. Times are in milliseconds."""
    return {"one_by_one": one_by_one(), "at_once": at_once()}


def one_by_one() -> dict[str, object]:
    """One request after the other, to a cloud with hosts of many sizes in some zones."""
    rng = random.Random(1)
    with database() as db:
        hosts = [a_host(number, ram_mib=rng.randrange(16, 512) * RAM_MIB) for number in range(HOSTS)]
        scheduler, requests = prepare(db, hosts, REQUESTS)
        first = milliseconds(lambda: scheduler.schedule(requests.pop()))
        scheduling, writing = [], []
        while requests:
            scheduling.append(milliseconds(lambda: scheduler.schedule(requests.pop())))
            writing.append(milliseconds(lambda: write_one_row(db)))
    return {
        "hosts": HOSTS,
        "first_ms": round(first, 1),  # reads all hosts
        "schedule_ms": spread(scheduling),
        "one_row_ms": spread(writing),
    }


def at_once() -> dict[str, object]:
    """As many requests at once as the cloud has places left, on a few of its hosts; each must get one of them."""
    with database() as db:
        full = [a_host(number, ram_mib=RAM_MIB // 2) for number in range(HOSTS - ROOMY)]
        roomy = [a_host(ZONES * number, ram_mib=PLACES * RAM_MIB) for number in range(ROOMY)]
        scheduler, requests = prepare(db, full + roomy, AT_ONCE)
        together = threading.Barrier(AT_ONCE)

        def one(request: SchedulingRequest) -> float | None:
            together.wait()
            try:
                return milliseconds(lambda: scheduler.schedule(request))
            except NoValidHost:
                return None

        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            times = list(pool.map(one, requests))
        took = time.perf_counter() - began
        return {
            "hosts": HOSTS,
            "places": ROOMY * PLACES,
            "requests": AT_ONCE,
            "placed": len(times) - times.count(None),
            "refused": times.count(None),
            "overcommitted_hosts": overcommitted(db),
            "placed_per_second": round(AT_ONCE / took, 1),
            "schedule_ms": spread([each for each in times if each is not None]),
        }


@contextmanager
def database() -> Iterator[Database]:
    """An empty database that is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        db = Database(f"sqlite:///{Path(directory) / 'hostler.db'}")
        upgrade(db)
        yield db
        db.close()


def prepare(db: Database, hosts: list[Host], count: int) -> tuple[Scheduler, list[SchedulingRequest]]:
    """A scheduler to which all hosts are alive, and requests for servers that exist."""
    servers = [a_server() for _ in range(count)]
    alive = frozenset(host.id for host in hosts)
    requests = [
        SchedulingRequest(server.id, 1, RAM_MIB, 10, zone="zone-0", architecture="x86_64") for server in servers
    ]
    with db.write() as session:
        session.add_all([*hosts, *servers])
    return Scheduler(db, lambda: alive, SchedulerSettings()), requests


def a_host(number: int, ram_mib: int) -> Host:
    """A host, in a zone by its number."""
    return Host(
        id=str(uuid4()),
        name=f"host-{number}",
        zone=f"zone-{number % ZONES}",
        vcpus=64,
        ram_mib=ram_mib,
        disk_gib=4000,
        architecture="x86_64",
        hypervisor_type="kvm",
    )


def a_server() -> Server:
    """A server being built."""
    return Server(
        id=str(uuid4()), name="server", flavor={}, flavor_id="-", flavor_name="small", vcpus=1, ram_mib=RAM_MIB
    )


def write_one_row(db: Database) -> None:
    """The baseline."""
    row = KeyPair(project="bench", name=str(uuid4()), public_key="-", fingerprint="-")
    db.run(lambda session: session.add(row))


def overcommitted(db: Database) -> int:
    """Hosts that gave away more memory than they have."""
    given = func.sum(col(Allocation.ram_mib))
    with db.read() as session:
        query = select(Host.id).join(Allocation).group_by(col(Host.id)).having(given > func.max(Host.ram_mib))
        return len(session.exec(query).all())


def milliseconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def spread(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    cuts = quantiles(times, n=20, method="inclusive")
    return {"p50": round(cuts[9], 2), "p95": round(cuts[18], 2), "max": round(max(times), 2)}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
