"""The audit's judgement and what heals, on both databases."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlmodel import select

from activities.control.audit.facts import read_facts
from activities.control.audit.healing import CHANGED, HEALED, give_back, release_rows
from activities.control.audit.images import judge_images
from activities.control.audit.records import LONG, judge_records
from activities.control.audit.removing import evict_image, finish, remove_remains
from activities.control.audit.servers import judge_servers, lost_operation
from activities.control.audit.storage import judge_storage
from activities.interfaces.audit import Suspicion
from activities.interfaces.holdings import GuestHolding, Holdings
from activities.interfaces.servers import HostRef
from drivers.strays import SETTLED
from hostler.contract.audit import FindingKind
from hostler.contract.guests import DiskKind
from hostler.contract.resources import DiskFormat, ImageStatus, ImageType, VolumeStatus
from hostler.contract.servers import DestinationType, OperationName, SourceType, Step, StepStatus
from hostler.contract.states import PowerState, TaskState, VmState
from models import Allocation, BlockDevice, Database, Host, Image, Network, Port, Server, ServerEvent, Volume, now
from tests.activities.given import uuid
from tests.rows import a_host, a_server, add

K = FindingKind
RUN, OTHER_RUN = uuid(), uuid()
HERE, THERE = HostRef(id=uuid(), name="here"), HostRef(id=uuid(), name="there")


@pytest.fixture
def hosts(database: Database) -> Database:
    """A database with two hosts."""
    add(database, *(a_host(id=host.id, name=host.name) for host in (HERE, THERE)))
    return database


def active(database: Database, **changes: object) -> Server:
    """A server that is up on the first host, by all books."""
    server = a_server(vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, host_id=HERE.id, **changes)
    allocation = Allocation(server_id=server.id, host_id=HERE.id, vcpus=1, ram_mib=1024, disk_gib=0)
    add(database, server)
    add(database, allocation)
    return server


def has(server: Server, power_state: PowerState = PowerState.RUNNING) -> Holdings:
    """What a host says that has the server and nothing else."""
    guest = GuestHolding(server_id=server.id, power_state=power_state, host_id=HERE.id)
    return Holdings(host_id=HERE.id, guests=[guest], claims=[server.id])


def judged(database: Database, holdings: Holdings, host: HostRef = HERE) -> list[Suspicion]:
    """What a look at the host suspects."""
    with database.read() as session:
        facts = read_facts(session, host.id, holdings)
        return [*judge_servers(host, holdings, facts), *judge_storage(host, holdings, facts)]


def kinds(suspicions: list[Suspicion]) -> list[FindingKind]:
    """Their kinds."""
    return [one.finding.kind for one in suspicions]


def test_a_host_that_has_what_the_books_say_is_in_order(hosts: Database) -> None:
    assert judged(hosts, has(active(hosts))) == []


def test_a_guest_that_is_off_is_suspected_with_what_was_seen(hosts: Database) -> None:
    server = active(hosts)
    [suspicion] = judged(hosts, has(server, PowerState.SHUTDOWN))
    assert (suspicion.finding.kind, suspicion.finding.safe) == (K.POWER_STATE, True)
    assert suspicion.evidence.updated_at == server.updated_at


@pytest.mark.parametrize("power", [PowerState.PAUSED, PowerState.CRASHED])
def test_a_guest_in_a_state_that_no_server_has_is_not_followed(hosts: Database, power: PowerState) -> None:
    [suspicion] = judged(hosts, has(active(hosts), power))
    assert (suspicion.finding.kind, suspicion.finding.safe) == (K.POWER_STATE, False)


def test_the_second_of_two_hosts_that_have_a_server_is_the_wrong_one(hosts: Database) -> None:
    server = active(hosts)
    guest = GuestHolding(server_id=server.id, power_state=PowerState.RUNNING, host_id=THERE.id)
    [suspicion] = judged(hosts, Holdings(host_id=THERE.id, guests=[guest]), THERE)
    assert (suspicion.finding.kind, suspicion.finding.safe) == (K.REMAINS, True)


@pytest.mark.parametrize("spawned_by", [None, THERE.id], ids=["nobody", "another"])
def test_a_guest_that_is_not_known_to_be_this_hosts_own_is_never_safe_to_remove(
    hosts: Database, spawned_by: str | None
) -> None:
    server = a_server(vm_state=VmState.DELETED, deleted_at=now())
    add(hosts, server)
    guest = GuestHolding(server_id=server.id, power_state=PowerState.RUNNING, host_id=spawned_by)
    [suspicion] = judged(hosts, Holdings(host_id=HERE.id, guests=[guest], claims=[server.id]))
    assert (suspicion.finding.kind, suspicion.finding.safe) == (K.FOREIGN_GUEST, False)


@pytest.mark.parametrize(
    "under_way",
    [
        {"operation_id": RUN},
        {"task_state": TaskState.SPAWNING},
        {"vm_state": VmState.BUILDING},
    ],
)
def test_what_an_operation_has_is_left_to_it(hosts: Database, under_way: dict[str, object]) -> None:
    """Nothing is said of what it holds, but that somebody must be at work on it."""
    server = a_server(**{"vm_state": VmState.ACTIVE, "host_id": HERE.id} | under_way)
    add(hosts, server)
    guest = GuestHolding(server_id=server.id, power_state=PowerState.PAUSED, host_id=THERE.id)
    assert kinds(judged(hosts, Holdings(host_id=HERE.id))) == [K.LOST_OPERATION]
    assert judged(hosts, Holdings(host_id=THERE.id, guests=[guest], claims=[server.id]), THERE) == []


def test_strays_are_said_and_keep_the_cache_as_it_is(hosts: Database) -> None:
    holdings = Holdings(host_id=HERE.id, strays=["/var/lib/hostler/x"], images=[uuid()])
    found = {one.finding.kind: one.finding.safe for one in judged(hosts, holdings)}
    assert found == {K.STRAY_FILE: False, K.CACHED_IMAGE: False}


def image(database: Database, status: ImageStatus = ImageStatus.ACTIVE) -> str:
    """An image of the catalogue."""
    image_id = uuid()
    add(database, Image(id=image_id, name="demo", disk_format=DiskFormat.RAW, status=status))
    return image_id


def image_findings(
    database: Database, stored: dict[str, datetime], strays: list[str] | None = None
) -> list[tuple[FindingKind, str]]:
    """What a look at a store with these files suspects, none of it safe to heal."""
    with database.read() as session:
        suspicions = list(judge_images(session, stored, strays or []))
    assert not any(one.finding.safe or one.finding.host for one in suspicions)
    return [(one.finding.kind, one.finding.subject) for one in suspicions]


def test_images_that_are_all_in_the_store_are_in_order(database: Database) -> None:
    assert image_findings(database, {image(database): now(), image(database): now() - 2 * SETTLED}) == []


def test_an_active_image_is_missed_in_the_store_and_one_that_is_saving_by_its_import(database: Database) -> None:
    active, saving = image(database), image(database, ImageStatus.SAVING)
    expected = [(K.NO_IMAGE_DATA, active), (K.STUCK_IMAGE, saving)]
    assert sorted(image_findings(database, {})) == expected


def test_a_file_without_a_row_is_unknown_once_it_has_settled(database: Database) -> None:
    old, new = uuid(), uuid()
    assert image_findings(database, {old: now() - 2 * SETTLED, new: now()}) == [(K.UNKNOWN_IMAGE, old)]


def test_the_import_of_an_image_that_is_saving_is_repeated_in_its_own_format(database: Database) -> None:
    """Declared as another format, the file that may be in the store already would be refused."""
    image_id = image(database, ImageStatus.SAVING)
    with database.read() as session:
        [suspicion] = judge_images(session, {}, [])
    remedy = f"hostler image create demo --id {image_id} --disk-format raw --file FILE"
    assert suspicion.finding.remedy == remedy


@pytest.mark.parametrize(
    ("shelved", "left"),
    [
        ({"vm_state": VmState.STOPPED}, True),
        ({"vm_state": VmState.DELETED, "deleted_at": now()}, True),
        ({"vm_state": VmState.ACTIVE, "operation_id": RUN, "task_state": TaskState.SHELVING}, False),
        ({"vm_state": VmState.SHELVED_OFFLOADED, "shelved_image_id": "the image"}, False),
        ({"vm_state": VmState.DELETED, "deleted_at": now(), "shelved_image_id": "the image"}, True),
    ],
)
def test_an_image_for_the_shelf_of_a_server_that_is_not_there_is_said(
    database: Database, shelved: dict[str, Any], left: bool
) -> None:
    server, image_id = a_server(**shelved), uuid()
    server.shelved_image_id = image_id if server.shelved_image_id else None
    properties: dict[str, str | None] = {"image_type": "shelved", "instance_uuid": server.id}
    status = ImageStatus.ACTIVE
    add(
        database, server, Image(id=image_id, name="s", disk_format=DiskFormat.RAW, status=status, properties=properties)
    )

    assert image_findings(database, {image_id: now()}) == ([(K.STUCK_IMAGE, image_id)] if left else [])


def test_the_only_copy_of_a_disk_is_not_told_to_be_deleted_without_a_word(hosts: Database) -> None:
    server = active(hosts)
    properties: dict[str, str | None] = {"image_type": "shelved", "instance_uuid": server.id}
    add(
        hosts,
        Image(id=uuid(), name="s", disk_format=DiskFormat.RAW, status=ImageStatus.ACTIVE, properties=properties),
    )
    with hosts.read() as session:
        image_id = session.exec(select(Image.id)).one()
        [suspicion] = judge_images(session, {image_id: now()}, [])
    assert (suspicion.finding.server_id, suspicion.finding.safe) == (server.id, False)
    assert "all that there is" in suspicion.finding.reason
    assert suspicion.finding.remedy == f"when its server has its guest, or is deleted: hostler image delete {image_id}"


def test_strays_of_the_image_store_are_said(database: Database) -> None:
    assert image_findings(database, {}, ["/srv/images/.x.part"]) == [(K.STRAY_FILE, "/srv/images/.x.part")]


def deleted(database: Database) -> Server:
    """A deleted server with a port, a disk and a volume."""
    server = a_server(vm_state=VmState.DELETED, deleted_at=now())
    network = Network(id=uuid(), name="net", cidr="10.0.0.0/24", gateway="10.0.0.1")
    add(database, server, network)
    disk = BlockDevice(
        id=uuid(),
        server_id=server.id,
        position=0,
        kind=DiskKind.DATA,
        device="vdb",
        size_bytes=1,
        source_type=SourceType.VOLUME,
        destination_type=DestinationType.VOLUME,
        delete_on_termination=True,
    )
    port = Port(id=uuid(), network_id=network.id, server_id=server.id, mac="fa:16:3e:00:00:01", ip="10.0.0.2")
    volume = Volume(id=uuid(), size_gib=1, status=VolumeStatus.IN_USE, host_id=HERE.id, server_id=server.id)
    add(database, disk, port, volume)
    return server


def records(database: Database) -> list[Suspicion]:
    """What a look at the records suspects."""
    with database.read() as session:
        return list(judge_records(session, frozenset({HERE.id, THERE.id})))


def test_a_deleted_server_gives_all_back_and_no_volume_is_lost(hosts: Database) -> None:
    deleted(hosts)
    [suspicion] = records(hosts)
    assert suspicion.finding.found == "it is deleted, and has ports, block devices, volumes"

    assert hosts.run(partial(release_rows, suspicion=suspicion)) == HEALED

    assert records(hosts) == []
    with hosts.read() as session:
        assert session.exec(select(Port)).all() == []
        [volume] = session.exec(select(Volume)).all()
    assert (volume.status, volume.server_id) == (VolumeStatus.AVAILABLE, None)


def held(database: Database) -> Suspicion:
    """A server whose run is gone, as both looks have seen it."""
    long_ago = now() - 2 * LONG
    server = active(database, operation_id=RUN, task_state=TaskState.REBOOTING, updated_at=long_ago)
    [suspicion] = judged(database, has(server))
    return suspicion


def given_back(database: Database, suspicion: Suspicion) -> str:
    """The outcome of giving it back."""
    return database.run(partial(give_back, suspicion=suspicion, run_id=OTHER_RUN))


def test_a_server_is_given_back_once_however_often_it_is_asked(hosts: Database) -> None:
    suspicion = held(hosts)
    assert given_back(hosts, suspicion) == HEALED
    with hosts.write() as session:
        session.get_one(Server, suspicion.finding.subject).task_state = TaskState.POWERING_OFF
    assert given_back(hosts, suspicion) == HEALED
    with hosts.read() as session:
        assert session.get_one(Server, suspicion.finding.subject).task_state is TaskState.POWERING_OFF


def test_a_server_that_another_operation_has_taken_is_not_given_back(hosts: Database) -> None:
    suspicion = held(hosts)
    with hosts.write() as session:
        session.get_one(Server, suspicion.finding.subject).operation_id = uuid()
    assert given_back(hosts, suspicion) == CHANGED


def test_a_homeless_error_keeps_its_fault(hosts: Database) -> None:
    fault = {"created_at": now().isoformat(), "error": {"code": "BuildFailed", "message": "no room"}}
    server = a_server(vm_state=VmState.ERROR, fault=fault, operation_id=RUN, updated_at=now() - timedelta(days=1))
    add(hosts, server)
    assert given_back(hosts, lost_operation(server, None)) == HEALED
    with hosts.read() as session:
        row = session.get_one(Server, server.id)
    assert (row.vm_state, row.fault, row.operation_id) == (VmState.ERROR, fault, None)


# Of a host that is down.


def goes_down(database: Database) -> None:
    """The first host is declared down."""
    with database.write() as session:
        session.get_one(Host, HERE.id).down_since = now()


def held_there(database: Database, task_state: TaskState, vm_state: VmState = VmState.ACTIVE) -> Server:
    """A server on the first host, which a run holds that is gone."""
    server = active(database, operation_id=RUN, task_state=task_state)
    with database.write() as session:
        values = {"vm_state": vm_state, "updated_at": now() - 2 * LONG}
        session.get_one(Server, server.id).sqlmodel_update(values)
    return server


def of_records(database: Database, *alive: HostRef) -> list[Suspicion]:
    """What is suspected of what is on no host that can be asked."""
    with database.read() as session:
        return list(judge_records(session, frozenset(host.id for host in alive)))


def test_who_holds_a_server_is_asked_of_the_records_once_its_host_was_declared_down(hosts: Database) -> None:
    server = held_there(hosts, TaskState.POWERING_OFF)
    active(hosts)
    assert of_records(hosts, THERE) == []  # it may only be silent

    goes_down(hosts)

    assert of_records(hosts, HERE, THERE) == []  # it is asked itself
    [suspicion] = of_records(hosts, THERE)
    assert (suspicion.finding.kind, suspicion.finding.subject) == (K.LOST_OPERATION, server.id)
    assert (suspicion.finding.safe, suspicion.finding.remedy) == (True, "hostler audit --heal")


def test_a_server_whose_host_is_back_is_not_given_back_unseen(hosts: Database) -> None:
    server = held_there(hosts, TaskState.POWERING_OFF)
    goes_down(hosts)
    [suspicion] = of_records(hosts, THERE)
    with hosts.write() as session:
        session.get_one(Host, HERE.id).down_since = None

    assert given_back(hosts, suspicion) == "its host has come back meanwhile"

    with hosts.read() as session:
        assert session.get_one(Server, server.id).operation_id == RUN


def test_what_changed_a_moment_ago_on_a_host_that_is_down_is_left_alone(hosts: Database) -> None:
    active(hosts, operation_id=RUN, task_state=TaskState.POWERING_OFF)
    goes_down(hosts)
    [suspicion] = of_records(hosts, THERE)
    assert "minutes ago" in given_back(hosts, suspicion)


@pytest.mark.parametrize(("made", "state"), [(-61, VmState.STOPPED), (1, VmState.SHELVED)])
def test_the_image_of_a_shelve_before_does_not_put_a_server_on_the_shelf(
    hosts: Database, made: int, state: VmState
) -> None:
    server = held_there(hosts, TaskState.SHELVING, VmState.STOPPED)
    ended = now() - LONG
    step = Step(name="settle", status=StepStatus.DONE, started_at=ended, finished_at=ended)
    event = ServerEvent(
        server_id=server.id,
        run_id=OTHER_RUN,
        operation=OperationName.START,
        position=0,
        step=step.model_dump(mode="json"),
    )
    image = Image(
        id=uuid(),
        name="web-shelved",
        status=ImageStatus.ACTIVE,
        disk_format=DiskFormat.QCOW2,
        properties={"image_type": ImageType.SHELVED, "instance_uuid": server.id},
        created_at=ended + timedelta(seconds=made),
    )
    add(hosts, event, image)
    goes_down(hosts)
    [suspicion] = of_records(hosts, THERE)

    assert hosts.run(partial(give_back, suspicion=suspicion, run_id=uuid())) == HEALED

    with hosts.read() as session:
        row = session.get_one(Server, server.id)
    assert (row.vm_state, row.power_state) == (state, PowerState.SHUTDOWN)
    assert (row.shelved_image_id, row.shelved_at is None) == ((None, True) if made < 0 else (image.id, False))


def test_a_server_in_error_on_a_host_that_is_down_can_be_evacuated(hosts: Database) -> None:
    server = held_there(hosts, TaskState.REBOOTING_HARD, VmState.ERROR)
    goes_down(hosts)
    [suspicion] = of_records(hosts, THERE)

    assert given_back(hosts, suspicion) == HEALED

    with hosts.read() as session:
        row = session.get_one(Server, server.id)
    assert row.vm_state is VmState.ERROR
    assert row.fault is not None
    assert row.fault["error"]["remedy"] == f"evacuate it: hostler server evacuate {server.id}"


def remains(database: Database) -> Suspicion:
    """A guest of a server that lives on the other host, and an allocation."""
    server = active(database)
    add(database, Allocation(server_id=server.id, host_id=THERE.id, vcpus=1, ram_mib=1024, disk_gib=0))
    guest = GuestHolding(server_id=server.id, power_state=PowerState.RUNNING, host_id=THERE.id)
    [suspicion] = judged(database, Holdings(host_id=THERE.id, guests=[guest]), THERE)
    return suspicion


def test_a_server_is_held_while_its_remains_are_removed_and_only_they_are_released(hosts: Database) -> None:
    suspicion = remains(hosts)
    for _ in range(2):
        treatment = hosts.run(partial(remove_remains, suspicion=suspicion, run_id=RUN))
        assert [step.activity for step in treatment.steps] == ["destroy_guest"]
        assert treatment.holds
    assert hosts.run(partial(remove_remains, suspicion=suspicion, run_id=OTHER_RUN)).reason == CHANGED
    for _ in range(2):
        hosts.run(partial(finish, suspicion=suspicion, run_id=RUN, done=True))
    with hosts.read() as session:
        assert session.get_one(Server, suspicion.finding.subject).operation_id is None
        assert session.exec(select(Allocation.host_id)).all() == [HERE.id]


def test_a_delete_that_takes_the_server_over_keeps_it(hosts: Database) -> None:
    suspicion = remains(hosts)
    hosts.run(partial(remove_remains, suspicion=suspicion, run_id=RUN))
    with hosts.write() as session:
        session.get_one(Server, suspicion.finding.subject).operation_id = OTHER_RUN
    hosts.run(partial(finish, suspicion=suspicion, run_id=RUN, done=False))
    with hosts.read() as session:
        assert session.get_one(Server, suspicion.finding.subject).operation_id == OTHER_RUN
        assert len(session.exec(select(Allocation)).all()) == 2


# Images in a cache whose row has gone.


def stands_on(database: Database, server: Server, image_id: str) -> None:
    """The server's root disk is an overlay of this image."""
    device = BlockDevice(
        id=uuid(),
        server_id=server.id,
        position=0,
        kind=DiskKind.ROOT,
        device="vda",
        size_bytes=2**30,
        source_type=SourceType.IMAGE,
        destination_type=DestinationType.LOCAL,
        image_id=image_id,
    )
    add(database, device)


def cached(image_id: str, *, on: HostRef = HERE, shared: bool = False) -> Holdings:
    """What a host says that has an image and nothing else."""
    return Holdings(host_id=on.id, images=[image_id], shares_images=shared)


def evicted(database: Database, suspicions: list[Suspicion], host: HostRef) -> bool:
    """Whether the host is asked to remove the one image that is suspected."""
    [suspicion] = suspicions
    assert (suspicion.finding.kind, suspicion.finding.safe) == (K.CACHED_IMAGE, True)
    with database.write() as session:
        treatment = evict_image(session, suspicion)
    assert treatment.host in (None, host)
    return [step.activity for step in treatment.steps] == ["evict_image"]


def test_a_cached_image_goes_from_hosts_where_no_disk_stands_on_it(hosts: Database) -> None:
    image_id = uuid()
    server = active(hosts)
    stands_on(hosts, server, image_id)

    assert judged(hosts, has(server).model_copy(update={"images": [image_id]})) == []
    found = judged(hosts, cached(image_id, on=THERE), THERE)

    assert evicted(hosts, found, THERE)


def test_a_cache_that_hosts_share_keeps_what_any_of_them_needs(hosts: Database) -> None:
    image_id = uuid()
    stands_on(hosts, active(hosts), image_id)

    assert judged(hosts, cached(image_id, on=THERE, shared=True), THERE) == []


def test_a_shared_image_that_is_needed_again_stays(hosts: Database) -> None:
    image_id = uuid()
    found = judged(hosts, cached(image_id, on=THERE, shared=True), THERE)

    stands_on(hosts, active(hosts), image_id)

    assert not evicted(hosts, found, THERE)


def test_a_cached_image_stays_for_what_is_reserved_set_aside_or_left_there(hosts: Database) -> None:
    image_id = uuid()
    server = active(hosts)
    stands_on(hosts, server, image_id)
    before = judged(hosts, cached(image_id, on=THERE), THERE)
    remains = cached(image_id, on=THERE).model_copy(update={"formers": [server.id]})
    assert K.CACHED_IMAGE not in {one.finding.kind for one in judged(hosts, remains, THERE)}

    add(hosts, Allocation(server_id=server.id, host_id=THERE.id, vcpus=1, ram_mib=1024, disk_gib=0))

    assert K.CACHED_IMAGE not in {one.finding.kind for one in judged(hosts, cached(image_id, on=THERE), THERE)}
    assert not evicted(hosts, before, THERE)


def test_the_last_copy_of_what_is_on_the_shelf_stays_wherever_it_is(hosts: Database) -> None:
    image_id = uuid()
    add(hosts, a_server(vm_state=VmState.SHELVED_OFFLOADED, shelved_image_id=image_id))

    assert judged(hosts, cached(image_id, on=THERE), THERE) == []
