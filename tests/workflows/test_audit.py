"""The audit: each kind of damage is found, healed where that is safe, else only reported, and no more is touched."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import col, delete, select
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy

from hostler.contract.audit import AUDIT, AuditReport, AuditRequest, Finding, FindingKind
from hostler.contract.errors import NotFound
from hostler.contract.guests import ClaimSpec, GuestSpec, PortBinding
from hostler.contract.names import CONTROL_QUEUE, host_queue
from hostler.contract.resources import DiskFormat, VolumeStatus
from hostler.contract.servers import BlockDeviceMapping, Server
from hostler.contract.states import PowerState, TaskState, VmState
from models import Allocation, BlockDevice, Image, OwedWork, Port, Volume, now
from models import Server as Row
from tests.cloud import DEMO, LIMIT, Cloud, World
from tests.rows import a_server
from tests.stage import eventually
from tests.workflows.conftest import StartCloud

K = FindingKind
AGES_AGO = timedelta(hours=1)


async def audit(cloud: Cloud, *, heal: bool = True, host: str | None = None, pause: float = 0.1) -> AuditReport:
    """An audit that does not wait long between its looks."""
    report: AuditReport = await cloud.temporal.execute_workflow(
        AUDIT,
        AuditRequest(heal=heal, host=host, pause=timedelta(seconds=pause)),
        id=f"{AUDIT}:{uuid4()}",
        task_queue=CONTROL_QUEUE,
        result_type=AuditReport,
        execution_timeout=LIMIT,
    )
    return report


def only(report: AuditReport) -> Finding:
    """Its one finding."""
    assert [finding.kind for finding in report.findings] == [report.findings[0].kind], report.findings
    assert (report.not_audited, report.more) == ([], 0)
    return report.findings[0]


async def on_host(cloud: Cloud, host: str, activity: str, argument: Any) -> None:
    """Let a host do something that no operation asked for."""
    await cloud.temporal.execute_activity(
        activity,
        argument,
        id=str(uuid4()),
        task_queue=host_queue(cloud.machine(host).id),
        start_to_close_timeout=LIMIT,
        retry_policy=RetryPolicy(maximum_attempts=1),
    )


def binding(server_id: str, port_id: str) -> PortBinding:
    """A port as a host binds it."""
    mac = f"fa:16:3e:{port_id[0:2]}:{port_id[2:4]}:{port_id[4:6]}"
    network = {"network_id": str(uuid4()), "network": "net", "prefix": 24, "gateway": "10.0.0.1"}
    return PortBinding(port_id=port_id, server_id=server_id, mac=mac, ip="10.0.0.77", **network)


async def plant(cloud: Cloud, host: str, server_id: str, *, guest: bool = True) -> None:
    """A claim, a bound port and a guest on the host."""
    port = binding(server_id, str(uuid4()))
    claim = ClaimSpec(server_id=server_id, vcpus=1, ram_mib=64, disk_gib=0)
    await on_host(cloud, host, "claim_resources", claim)
    await on_host(cloud, host, "bind_ports", {"server_id": server_id, "ports": [port.model_dump()]})
    if guest:
        spec = GuestSpec(
            server_id=server_id, name="ghost", project="default", flavor="tiny", vcpus=1, ram_mib=64, disks=[]
        )
        await on_host(cloud, host, "spawn", spec.model_copy(update={"ports": [port]}))


def allocate(cloud: Cloud, host: str, server_id: str) -> None:
    """An allocation that nobody asked for."""
    host_id = cloud.machine(host).id
    cloud.add(Allocation(server_id=server_id, host_id=host_id, vcpus=1, ram_mib=64, disk_gib=0))


def change(cloud: Cloud, server_id: str, **values: Any) -> None:
    """Write into a server's row; by default long ago."""
    with cloud.database.write() as session:
        session.get_one(Row, server_id).sqlmodel_update({"updated_at": now() - AGES_AGO} | values)


def without(cloud: Cloud, table: Any, server_id: str) -> None:
    """Lose the server's rows of a table."""
    with cloud.database.write() as session:
        session.exec(delete(table).where(table.server_id == server_id))


async def elsewhere(cloud: Cloud, server: Server) -> str:
    """The host on which the server is not."""
    return "sim-2" if server.host == "sim-1" else "sim-1"


async def events(cloud: Cloud, server_id: str) -> list[str]:
    """What the audit wrote into the server's history."""
    return [one.step.note or "" for one in await cloud.client.servers.events(server_id) if one.operation == AUDIT]


# The power state follows the hypervisor.


async def test_nothing_is_found_where_nothing_is_wrong(cloud: Cloud) -> None:
    servers = [await cloud.booted(f"web-{number}") for number in range(2)]
    await (await cloud.client.servers.stop(servers[0].id)).result(LIMIT)
    await cloud.deleted((await cloud.booted("gone")).id)
    before = await cloud.world()

    report = await audit(cloud)

    assert (report.findings, report.counts, report.not_audited, report.hosts) == ([], {}, [], 2)
    assert await cloud.world() == before


async def test_a_server_whose_guest_was_shut_down_is_stopped(cloud: Cloud) -> None:
    server = await cloud.booted()
    stopping = {"server_id": server.id, "timeout": 0}
    await on_host(cloud, server.host or "", "stop_guest", stopping)

    report = await audit(cloud)

    assert (only(report).kind, only(report).healed, report.unhealed) == (K.POWER_STATE, True, 0)
    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.power_state) == ("SHUTOFF", PowerState.SHUTDOWN)
    assert await events(cloud, server.id) == ["its guest is shutdown: SHUTOFF, was ACTIVE"]
    assert (await audit(cloud)).findings == []
    await (await cloud.client.servers.start(server.id)).result(LIMIT)


async def test_a_server_whose_guest_was_started_is_active(cloud: Cloud) -> None:
    server = await cloud.booted()
    await (await cloud.client.servers.stop(server.id)).result(LIMIT)
    await on_host(cloud, server.host or "", "start_guest", {"server_id": server.id})

    assert only(await audit(cloud)).healed

    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.power_state) == ("ACTIVE", PowerState.RUNNING)


async def test_a_power_state_that_was_not_written_is_written(cloud: Cloud) -> None:
    server = await cloud.booted()
    change(cloud, server.id, power_state=PowerState.NOSTATE)
    assert only(await audit(cloud)).healed
    assert (await cloud.client.servers.show(server.id)).power_state is PowerState.RUNNING


# Servers that lack something: nothing can make it again, so they are reported.


async def test_a_server_without_a_guest_is_reported(cloud: Cloud) -> None:
    server = await cloud.booted()
    await on_host(cloud, server.host or "", "destroy_guest", {"server_id": server.id})
    before = await cloud.world()

    report = await audit(cloud)

    finding = only(report)
    assert (finding.kind, finding.safe, finding.healed) == (K.NO_GUEST, False, False)
    assert (finding.server, finding.host, finding.remedy) == ("web", "sim-1", f"hostler server delete {server.id}")
    assert await cloud.world() == before
    await cloud.deleted(server.id)
    assert (await audit(cloud)).findings == []


async def test_a_server_without_claim_allocation_and_bound_port_is_reported(cloud: Cloud) -> None:
    server = await cloud.booted()
    port = server.addresses[0].port_id
    await on_host(cloud, "sim-1", "drop_claim", {"server_id": server.id})
    await on_host(cloud, "sim-1", "unbind_ports", {"server_id": server.id, "port_ids": [port]})
    without(cloud, Allocation, server.id)
    before = await cloud.world()

    report = await audit(cloud)

    assert report.counts == {K.NO_CLAIM: 1, K.NO_ALLOCATION: 1, K.UNBOUND_PORT: 1}
    assert report.unhealed == 3
    assert await cloud.world() == before


# What is on a host of servers that are not there.


async def test_the_remains_of_a_deleted_server_are_removed(cloud: Cloud) -> None:
    other = await cloud.booted("other")
    gone = await cloud.booted("gone")
    await cloud.deleted(gone.id)
    before = await cloud.world()
    await plant(cloud, "sim-1", gone.id)
    allocate(cloud, "sim-1", gone.id)

    report = await audit(cloud)

    finding = only(report)
    assert (finding.kind, finding.subject, finding.healed) == (K.REMAINS, gone.id, True)
    assert "a guest (paused), a claim, an allocation, bound port" in finding.found
    assert await cloud.world() == before
    assert other.id in {server_id for _, server_id in before.guests}


async def test_the_remains_of_a_server_that_lives_elsewhere_are_removed(cloud: Cloud) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await plant(cloud, "sim-2", server.id)
    allocate(cloud, "sim-2", server.id)

    assert only(await audit(cloud)).healed

    assert await cloud.world() == before
    assert (await cloud.client.servers.show(server.id)).host == "sim-1"


async def test_the_only_guest_of_a_server_is_kept_wherever_it_is(cloud: Cloud) -> None:
    """As after a restore: the server has moved since the backup was made."""
    server = await cloud.booted()
    await plant(cloud, "sim-2", server.id)
    await on_host(cloud, "sim-1", "destroy_guest", {"server_id": server.id})
    before = await cloud.world()

    report = await audit(cloud)

    remains = next(finding for finding in report.findings if finding.kind is K.REMAINS)
    assert (remains.safe, remains.healed) == (False, False)
    assert "may be the only one" in remains.reason
    assert await cloud.world() == before


async def test_remains_are_kept_while_the_servers_own_host_is_silent(cloud: Cloud) -> None:
    server = await cloud.booted()
    await plant(cloud, "sim-2", server.id)
    await cloud.stop_host("sim-1")
    before = await cloud.world()

    report = await audit(cloud)

    [finding] = report.findings
    assert (finding.kind, finding.healed) == (K.REMAINS, False)
    assert "does not answer" in finding.reason
    assert await cloud.world() == before


async def test_a_guest_that_another_host_spawned_is_reported(cloud: Cloud) -> None:
    gone = await cloud.booted()
    await cloud.deleted(gone.id)
    await plant(cloud, "sim-1", gone.id)
    stranger = str(uuid4())
    await cloud.stop_host("sim-1")
    file = cloud.machine("sim-1").directory / "guests" / f"{gone.id}.json"
    file.write_text(file.read_text().replace(cloud.machine("sim-1").id, stranger))
    assert stranger in file.read_text()
    await cloud.start_host("sim-1")
    before = await cloud.world()

    finding = only(await audit(cloud))

    assert (finding.kind, finding.safe, finding.healed) == (K.FOREIGN_GUEST, False, False)
    assert stranger in finding.found
    assert await cloud.world() == before


async def test_what_a_server_has_that_the_database_never_heard_of_is_reported(cloud: Cloud) -> None:
    unknown = str(uuid4())
    await plant(cloud, "sim-2", unknown)
    before = await cloud.world()

    finding = only(await audit(cloud))

    assert (finding.kind, finding.subject, finding.safe) == (K.UNKNOWN_SERVER, unknown, False)
    assert await cloud.world() == before


async def test_what_a_host_owes_is_not_found_besides(cloud: Cloud) -> None:
    gone = await cloud.booted()
    await cloud.stop_host("sim-1")
    await cloud.deleted(gone.id)
    cloud.alive.discard(cloud.machine("sim-1").id)
    report = await audit(cloud)
    assert ([one.host for one in report.not_audited], report.findings) == (["sim-1"], [])


# Rows that are left.


async def test_ports_and_disks_of_a_deleted_server_are_given_back(cloud: Cloud) -> None:
    server = await cloud.booted()
    with cloud.database.read() as session:
        port = session.exec(select(Port)).one()
        disk = session.exec(select(BlockDevice)).one()
    await cloud.deleted(server.id)
    before = await cloud.world()
    cloud.add(Port(**port.model_dump()), BlockDevice(**disk.model_dump()))

    finding = only(await audit(cloud))

    assert (finding.kind, finding.subject, finding.healed) == (K.DELETED_SERVER, server.id, True)
    assert await cloud.world() == before


async def test_an_import_that_nobody_carries_out_is_reported(cloud: Cloud) -> None:
    cloud.add(Image(id=str(uuid4()), name="half", disk_format=DiskFormat.QCOW2))
    assert only(await audit(cloud)).kind is K.STUCK_IMAGE


def aged(cloud: Cloud, name: str) -> Path:
    """A file in the image store that nobody has written to for long."""
    path = cloud.settings.images_dir / name
    path.touch()
    os.utime(path, (0, 0))
    return path


async def test_an_image_without_a_row_is_kept_and_can_be_given_one(cloud: Cloud, disk: Path) -> None:
    image = await cloud.client.images.create("mine", disk)
    with cloud.database.write() as session:
        session.exec(delete(Image).where(col(Image.id) == image.id))
    assert (await audit(cloud)).findings == []
    file = aged(cloud, image.id)

    finding = only(await audit(cloud))

    assert (finding.kind, finding.subject, finding.host) == (K.UNKNOWN_IMAGE, image.id, None)
    assert (finding.safe, file.stat().st_size) == (False, image.size_bytes)
    assert f"hostler image create NAME --id {image.id}" in finding.remedy
    again = await cloud.client.images.create("mine", disk, image_id=image.id)
    assert again.checksum == image.checksum
    assert (await audit(cloud)).findings == []


async def test_a_file_whose_import_runs_is_not_found(cloud: Cloud, disk: Path) -> None:
    image_id = str(uuid4())
    held = cloud.stage.hold("accept_image")
    importing = asyncio.create_task(cloud.client.images.create("mine", disk, image_id=image_id))
    await held.reached.wait()
    file = aged(cloud, image_id)
    assert (await audit(cloud)).findings == []
    file.unlink()
    held.go_on.set()
    await importing


async def test_an_image_without_its_file_is_reported_and_can_be_deleted(cloud: Cloud) -> None:
    image = await cloud.client.images.show(DEMO)
    (cloud.settings.images_dir / image.id).unlink()
    before = await cloud.world()

    finding = only(await audit(cloud))

    assert (finding.kind, finding.subject, finding.safe) == (K.NO_IMAGE_DATA, image.id, False)
    assert f"hostler image delete {image.id}" in finding.remedy
    assert await cloud.world() == before
    await cloud.client.images.delete(image.id)
    assert (await audit(cloud)).findings == []


async def test_an_abandoned_import_is_reported_and_kept(cloud: Cloud) -> None:
    file = aged(cloud, f".{uuid4()}.part")
    finding = only(await audit(cloud))
    assert (finding.kind, finding.subject, finding.host) == (K.STRAY_FILE, str(file), None)
    assert file.exists()


async def test_an_image_is_evicted_once_it_is_neither_listed_nor_used(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.client.images.delete(DEMO)
    assert (await audit(cloud)).findings == []

    await cloud.deleted(server.id)
    report = await audit(cloud)

    assert {finding.kind for finding in report.findings} == {K.CACHED_IMAGE}
    assert report.unhealed == 0
    assert cloud.machine("sim-1").images.cached() == []


async def test_a_cached_image_stays_while_a_guest_is_not_understood(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.deleted(server.id)
    await cloud.client.images.delete(DEMO)
    await plant(cloud, "sim-1", str(uuid4()))

    report = await audit(cloud, host="sim-1")

    cached = next(finding for finding in report.findings if finding.kind is K.CACHED_IMAGE)
    assert (cached.safe, cached.healed) == (False, False)
    assert len(cloud.machine("sim-1").images.cached()) == 1


# Operations without a workflow, and the reverse.


async def held_by_nobody(cloud: Cloud, server_id: str, **values: Any) -> None:
    """The row says that a run works on the server; there is none such."""
    change(cloud, server_id, operation_id=str(uuid4()), **values)


@pytest.mark.parametrize(
    ("stopped", "state", "task", "status"),
    [
        (False, VmState.ACTIVE, TaskState.REBOOTING, "ACTIVE"),
        (True, VmState.ACTIVE, TaskState.POWERING_OFF, "SHUTOFF"),
        (False, VmState.ACTIVE, TaskState.DELETING, "ACTIVE"),
        (False, VmState.ERROR, TaskState.POWERING_OFF, "ERROR"),
    ],
)
async def test_a_server_is_given_back_as_its_guest_is(
    cloud: Cloud, stopped: bool, state: VmState, task: TaskState, status: str
) -> None:
    server = await cloud.booted()
    if stopped:
        await on_host(cloud, "sim-1", "stop_guest", {"server_id": server.id, "timeout": 0})
    await held_by_nobody(cloud, server.id, vm_state=state, task_state=task)

    assert only(await audit(cloud)).healed

    shown = await cloud.client.servers.show(server.id)
    assert (shown.status, shown.task_state) == (status, None)
    [said] = await events(cloud, server.id)
    assert f"{status}, was" in said
    assert (await cloud.world()).held_servers == frozenset()


async def test_a_build_that_nobody_carries_out_is_given_up(cloud: Cloud) -> None:
    before = await cloud.world()
    held = cloud.stage.hold("spawn")
    boot = await cloud.boot()
    await held.reached.wait()
    await cloud.temporal.get_workflow_handle(f"server:{boot.server_id}").terminate()
    held.go_on.set()
    await eventually(lambda: not cloud.stage.under_way)
    change(cloud, boot.server_id)

    report = await audit(cloud)

    assert {finding.kind: finding.healed for finding in report.findings} == {K.LOST_OPERATION: True}
    shown = await cloud.client.servers.show(boot.server_id)
    assert shown.status == "ERROR"
    assert shown.fault is not None
    assert boot.run_id in shown.fault.error.message
    assert f"hostler server delete {boot.server_id}" in (shown.fault.error.remedy or "")

    again = await audit(cloud)
    assert {finding.kind for finding in again.findings} == {K.REMAINS}
    assert again.healed == 0
    await cloud.deleted(boot.server_id)
    assert replace(await cloud.world(), quota=()) == replace(before, quota=())


async def test_a_row_that_changed_a_moment_ago_is_left_to_whoever_changed_it(cloud: Cloud) -> None:
    server = await cloud.booted()
    await held_by_nobody(cloud, server.id, updated_at=now())
    finding = only(await audit(cloud))
    assert (finding.kind, finding.healed) == (K.LOST_OPERATION, False)
    assert "minutes ago" in finding.reason


async def test_a_lost_delete_whose_guest_is_gone_ends_in_error(cloud: Cloud) -> None:
    server = await cloud.booted()
    await on_host(cloud, "sim-1", "destroy_guest", {"server_id": server.id})
    await held_by_nobody(cloud, server.id, task_state=TaskState.DELETING)

    assert only(await audit(cloud)).healed

    shown = await cloud.client.servers.show(server.id)
    assert shown.status == "ERROR"
    assert "no guest on its host" in shown.fault.error.message  # type: ignore[union-attr]  # the test fails without one


async def test_a_run_that_does_not_hold_its_server_is_reported(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("stop_guest")
    operation = await cloud.client.servers.stop(server.id)
    await held.reached.wait()
    with cloud.database.write() as session:
        session.get_one(Row, server.id).operation_id = None
    monkeypatch.setattr("activities.control.audit.audit.LONG", timedelta(0))
    await _visible(cloud, f"WorkflowId = 'server:{server.id}' AND ExecutionStatus = 'Running'")

    finding = only(await audit(cloud))

    assert (finding.kind, finding.subject) == (K.UNKNOWN_OPERATION, operation.run_id)
    held.go_on.set()
    await operation.result(LIMIT)


async def _visible(cloud: Cloud, query: str) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not [one async for one in cloud.temporal.list_workflows(query)]:  # noqa: ASYNC110 - it is about Temporal
            await asyncio.sleep(0.05)


# Hosts.


async def test_a_host_that_does_not_answer_is_not_judged(cloud: Cloud) -> None:
    server = await cloud.booted()
    await held_by_nobody(cloud, server.id)
    gone = await cloud.booted("gone")
    await cloud.deleted(gone.id)
    allocate(cloud, "sim-1", gone.id)
    await cloud.stop_host("sim-1")
    before = await cloud.world()

    report = await audit(cloud)

    [missing] = report.not_audited
    assert (missing.host, missing.reason) == ("sim-1", "host sim-1 does not answer")
    assert (report.findings, report.hosts) == ([], 1)
    assert await cloud.world() == before


async def test_a_host_that_is_up_and_owes_for_long_is_reported(cloud: Cloud) -> None:
    work: dict[str, Any] = {"activity": "drop_claim", "argument": {"server_id": str(uuid4())}, "reason": "away"}
    host_id = cloud.machine("sim-2").id
    cloud.add(OwedWork(id=str(uuid4()), host_id=host_id, created_at=now() - AGES_AGO, **work))
    assert (only(await audit(cloud)).kind, only(await audit(cloud)).host) == (K.OWED_WORK, "sim-2")


async def test_a_host_worker_that_the_database_does_not_know_is_reported(cloud: Cloud) -> None:
    unknown = str(uuid4())
    cloud.alive.add(unknown)
    assert (only(await audit(cloud)).kind, only(await audit(cloud)).subject) == (K.UNKNOWN_HOST, unknown)


async def test_one_host_alone_can_be_audited(cloud: Cloud) -> None:
    await plant(cloud, "sim-1", str(uuid4()))
    await plant(cloud, "sim-2", str(uuid4()))
    report = await audit(cloud, host="sim-2")
    assert ([finding.host for finding in report.findings], report.hosts) == (["sim-2"], 1)


# Volumes.


@pytest.fixture
async def keeper(start_cloud: StartCloud) -> Cloud:
    """A cloud whose first host keeps volumes."""
    return await start_cloud(volumes=True)


def attach(volume_id: str) -> dict[str, Any]:
    """A boot with the volume as a second disk."""
    disk = BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=volume_id)
    return {"block_devices": [disk]}


def deleted_holder(cloud: Cloud, volume_id: str) -> str:
    """A deleted server that still holds the volume."""
    server = a_server(vm_state=VmState.DELETED, deleted_at=now())
    cloud.add(server)
    with cloud.database.write() as session:
        session.get_one(Volume, volume_id).sqlmodel_update({"server_id": server.id, "status": VolumeStatus.IN_USE})
    return server.id


async def test_a_volume_of_a_deleted_server_is_withdrawn_and_given_back(keeper: Cloud) -> None:
    other = await keeper.client.volumes.create(size_gib=1)
    await keeper.booted(**attach(other.id))
    volume = await keeper.client.volumes.create(size_gib=1)
    before = await keeper.world()
    await on_host(keeper, "sim-1", "export_volume", {"volume_id": volume.id})
    deleted_holder(keeper, volume.id)

    report = await audit(keeper)

    assert {finding.kind: finding.healed for finding in report.findings} == {K.EXPORT: True, K.DELETED_SERVER: True}
    assert replace(await keeper.world(), servers=before.servers) == before


async def test_no_volume_is_touched_while_a_guest_is_unknown_somewhere(keeper: Cloud) -> None:
    """As after a restore: the volume may since have become the unknown guest's."""
    volume = await keeper.client.volumes.create(size_gib=1)
    await on_host(keeper, "sim-1", "export_volume", {"volume_id": volume.id})
    deleted_holder(keeper, volume.id)
    await plant(keeper, "sim-2", str(uuid4()))
    before = await keeper.world()

    report = await audit(keeper)

    assert report.counts == {K.EXPORT: 1, K.DELETED_SERVER: 1, K.UNKNOWN_SERVER: 1}
    assert report.healed == 0
    assert await keeper.world() == before


async def test_an_export_that_nobody_is_known_to_have_had_is_reported(keeper: Cloud) -> None:
    volume = await keeper.client.volumes.create(size_gib=1)
    await on_host(keeper, "sim-1", "export_volume", {"volume_id": volume.id})
    before = await keeper.world()
    finding = only(await audit(keeper))
    assert (finding.kind, finding.safe) == (K.EXPORT, False)
    assert await keeper.world() == before


async def test_a_volume_that_is_not_served_to_its_server_is_reported(keeper: Cloud) -> None:
    volume = await keeper.client.volumes.create(size_gib=1)
    await keeper.booted(**attach(volume.id))
    await on_host(keeper, "sim-1", "withdraw_volume", {"volume_id": volume.id})
    assert only(await audit(keeper)).kind is K.NO_EXPORT


async def test_data_without_a_row_is_never_removed(keeper: Cloud) -> None:
    volume = await keeper.client.volumes.create(size_gib=1)
    with keeper.database.write() as session:
        session.exec(delete(Volume).where(col(Volume.id) == volume.id))
    before = await keeper.world()
    finding = only(await audit(keeper))
    assert (finding.kind, finding.subject, finding.safe) == (K.UNKNOWN_VOLUME, volume.id, False)
    assert await keeper.world() == before


async def test_a_row_without_data_is_reported(keeper: Cloud) -> None:
    volume = await keeper.client.volumes.create(size_gib=1)
    await on_host(keeper, "sim-1", "delete_volume_data", {"volume_id": volume.id})
    assert only(await audit(keeper)).kind is K.NO_VOLUME_DATA
    await keeper.client.volumes.delete(volume.id)
    assert (await audit(keeper)).findings == []


async def test_a_volume_that_nobody_makes_is_reported_and_can_be_deleted(keeper: Cloud) -> None:
    host_id = keeper.machine("sim-1").id
    volume = Volume(id=str(uuid4()), size_gib=1, status=VolumeStatus.CREATING, host_id=host_id)
    keeper.add(volume)
    finding = only(await audit(keeper))
    assert (finding.kind, finding.remedy) == (K.STUCK_VOLUME, f"hostler volume delete {finding.subject}")
    await keeper.client.volumes.delete(finding.subject)
    assert (await audit(keeper)).findings == []


# A dry run, a crowd, and operations that run meanwhile.


async def damaged(cloud: Cloud) -> None:
    """Something of everything that can be healed."""
    gone, moved, off = [await cloud.booted(name) for name in ("gone", "moved", "off")]
    await cloud.deleted(gone.id)
    await plant(cloud, "sim-1", gone.id)
    await plant(cloud, await elsewhere(cloud, moved), moved.id)
    await on_host(cloud, off.host or "", "stop_guest", {"server_id": off.id, "timeout": 0})
    await held_by_nobody(cloud, (await cloud.booted("lost")).id)


async def test_a_dry_run_finds_the_same_and_changes_nothing(cloud: Cloud) -> None:
    await damaged(cloud)
    before = await cloud.world()

    dry = await audit(cloud, heal=False)

    assert await cloud.world() == before
    assert dry.counts == {K.REMAINS: 2, K.POWER_STATE: 1, K.LOST_OPERATION: 1}
    assert (dry.healed, dry.heal) == (0, False)
    report = await audit(cloud)
    assert (report.counts, report.unhealed) == (dry.counts, 0)
    assert (await audit(cloud)).findings == []


async def test_two_audits_at_once_heal_once(cloud: Cloud) -> None:
    await damaged(cloud)
    await asyncio.gather(audit(cloud), audit(cloud))
    assert (await audit(cloud)).findings == []


async def test_what_happens_between_the_looks_is_not_found(cloud: Cloud) -> None:
    server = await cloud.booted()
    stage = cloud.stage.hold("stop_guest")
    await on_host(cloud, "sim-1", "destroy_guest", {"server_id": server.id})
    operation = await cloud.client.servers.stop(server.id)
    await stage.reached.wait()
    assert (await audit(cloud)).findings == []
    stage.go_on.set()
    await cloud.failure(operation)


async def test_operations_that_run_are_neither_judged_nor_harmed(cloud: Cloud) -> None:
    before = await cloud.world()
    over = asyncio.Event()

    async def life(number: int) -> None:
        while not over.is_set():
            server = await cloud.booted(f"busy-{number}")
            await (await cloud.client.servers.stop(server.id)).result(LIMIT)
            await (await cloud.client.servers.start(server.id)).result(LIMIT)
            await (await cloud.client.servers.reboot(server.id)).result(LIMIT)
            await cloud.deleted(server.id)

    lives = [asyncio.create_task(life(number)) for number in range(6)]
    reports = [await audit(cloud) for _ in range(8)]
    over.set()
    await asyncio.gather(*lives)

    assert [report.findings for report in reports] == [[]] * len(reports)
    assert replace(await cloud.world(), quota=()) == replace(before, quota=())


async def test_an_operation_that_begins_before_the_healing_has_its_way(cloud: Cloud) -> None:
    server = await cloud.booted()
    await on_host(cloud, "sim-1", "stop_guest", {"server_id": server.id, "timeout": 0})
    healing, starting = cloud.stage.hold("heal_finding"), cloud.stage.hold("reboot_guest")
    auditing = asyncio.create_task(audit(cloud))
    await healing.reached.wait()
    operation = await cloud.client.servers.reboot(server.id)
    await starting.reached.wait()
    healing.go_on.set()

    finding = only(await auditing)

    assert (finding.kind, finding.healed) == (K.POWER_STATE, False)
    assert finding.reason == "an operation has begun meanwhile"
    starting.go_on.set()
    assert (await operation.result(LIMIT)).status == "ACTIVE"


async def test_a_server_is_held_while_its_remains_are_removed(cloud: Cloud) -> None:
    server = await cloud.booted()
    await plant(cloud, "sim-2", server.id)
    before = await cloud.world()
    held = cloud.stage.hold("destroy_guest")
    auditing = asyncio.create_task(audit(cloud))
    await held.reached.wait()
    with pytest.raises(Exception, match="is still held by run"):
        await cloud.client.servers.stop(server.id)
    held.go_on.set()
    assert only(await auditing).healed
    assert (await cloud.world()).held_servers == before.held_servers == frozenset()


async def test_an_audit_that_is_cancelled_ends_the_healing_that_it_has_begun_and_begins_no_other(cloud: Cloud) -> None:
    servers = [await cloud.booted(name, host="sim-1") for name in ("one", "other")]
    before = await cloud.world()
    for server in servers:
        await plant(cloud, "sim-2", server.id)
    held = cloud.stage.hold("destroy_guest")
    request = AuditRequest(heal=True, pause=timedelta(seconds=0.1))
    handle = await cloud.temporal.start_workflow(AUDIT, request, id=f"{AUDIT}:{uuid4()}", task_queue=CONTROL_QUEUE)
    await held.reached.wait()
    await handle.cancel()
    held.go_on.set()
    with pytest.raises(WorkflowFailureError):
        await handle.result()

    left = await cloud.world()
    assert left.held_servers == before.held_servers
    assert len(left.guests - before.guests) == len(left.claims - before.claims) == 1
    assert (await audit(cloud)).unhealed == 0
    assert await cloud.world() == before


@pytest.mark.sampled
@pytest.mark.parametrize("step", ["heal_finding", "destroy_guest", "unbind_ports", "drop_claim", "finish_healing"])
async def test_healing_may_happen_twice(cloud: Cloud, step: str) -> None:
    server = await cloud.booted()
    before = await cloud.world()
    await plant(cloud, "sim-2", server.id)
    allocate(cloud, "sim-2", server.id)
    cloud.stage.fail(step, OSError("its answer is lost"), afterwards=True)
    assert only(await audit(cloud)).healed
    assert await cloud.world() == before


async def test_a_host_that_cannot_heal_keeps_the_rest_for_the_next_audit(cloud: Cloud) -> None:
    gone = await cloud.booted()
    await cloud.deleted(gone.id)
    before = await cloud.world()
    await plant(cloud, "sim-1", gone.id)
    allocate(cloud, "sim-1", gone.id)
    cloud.stage.fail("destroy_guest", OSError("libvirt is away"), times=5)

    finding = only(await audit(cloud))

    assert (finding.healed, "libvirt is away" in finding.reason) == (False, True)
    assert ("sim-1", gone.id) in (await cloud.world()).allocations
    assert only(await audit(cloud)).healed
    assert await cloud.world() == before


async def test_a_crowd_of_findings_is_counted_but_not_listed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.control.audit.audit.MOST", 5)
    for _ in range(9):
        await plant(cloud, "sim-1", str(uuid4()), guest=False)
    report = await audit(cloud)
    assert (report.counts, len(report.findings), report.more) == ({K.UNKNOWN_SERVER: 9}, 5, 4)


async def test_an_audit_of_no_host_is_refused(cloud: Cloud) -> None:
    with pytest.raises(NotFound):
        await cloud.client.audit(host="nowhere")


# The database, restored from yesterday's backup.


async def test_after_a_restore_nothing_that_came_since_is_removed(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(volumes=True)
    volume = await cloud.client.volumes.create(size_gib=1)
    kept, later_deleted, later_off = [await cloud.booted(name) for name in ("kept", "later-deleted", "later-off")]
    tables = _dump(cloud)
    new = await cloud.booted("new", **attach(volume.id))
    fresh = await cloud.client.volumes.create(size_gib=1)
    await cloud.deleted(later_deleted.id)
    await (await cloud.client.servers.stop(later_off.id)).result(LIMIT)
    real = await cloud.world()

    _restore(cloud, tables)
    report = await audit(cloud)

    found = {(finding.kind, finding.subject) for finding in report.findings if not finding.healed}
    assert {(K.UNKNOWN_SERVER, new.id), (K.UNKNOWN_VOLUME, fresh.id), (K.EXPORT, volume.id)} <= found
    assert (K.NO_GUEST, later_deleted.id) in found
    healed = [(finding.kind, finding.subject) for finding in report.findings if finding.healed]
    assert healed == [(K.POWER_STATE, later_off.id)]
    assert _on_hosts(await cloud.world()) == _on_hosts(real)
    assert (await cloud.client.servers.show(kept.id)).status == "ACTIVE"


def _on_hosts(world: World) -> tuple[frozenset[Any], ...]:
    return (world.guests, world.claims, world.bound_ports, world.volume_files, world.exports)


Tables = list[dict[str, Any]]
RESTORED: tuple[Any, ...] = (Row, Volume, Port, BlockDevice, Allocation)


def _dump(cloud: Cloud) -> list[Tables]:
    with cloud.database.read() as session:
        return [[row.model_dump() for row in session.exec(select(table))] for table in RESTORED]


def _restore(cloud: Cloud, tables: list[Tables]) -> None:
    with cloud.database.write() as session:
        for table in reversed(RESTORED):
            session.exec(delete(table))
        for table, rows in zip(RESTORED, tables, strict=True):
            session.add_all(table(**row) for row in rows)
            session.flush()
