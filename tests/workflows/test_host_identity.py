"""Who a host is, across names, directories and machines. Whatever happens to it, nothing is destroyed."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select

import workers.admission
from hostler.contract.errors import Conflict
from models import Host
from tests.cloud import Cloud
from workers.admission import admit, is_admitted
from workers.host import serve
from workers.host_identity import note_admission, was_admitted
from workers.machine import Machine, make_machines

ONE, OTHER = "1" * 32, "2" * 32


async def on_machine(cloud: Cloud, machine_id: str) -> None:
    """sim-1 is stopped, and on this machine from now on."""
    await cloud.stop_host("sim-1")
    cloud.machines[0] = replace(cloud.machine("sim-1"), machine_id=machine_id)


async def another(cloud: Cloud, machine_id: str) -> Machine:
    """A machine with the same state directory, drivers and all."""
    copy, *_ = await make_machines(cloud.settings)
    return replace(copy, machine_id=machine_id)


async def test_a_renamed_host_keeps_its_servers(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    await cloud.stop_host("sim-1")
    cloud.machines[0] = replace(cloud.machine("sim-1"), name="renamed")

    await cloud.start_host("renamed")

    assert (await cloud.client.servers.show(server.id)).host == "renamed"
    assert (await cloud.world()).guests == before.guests
    assert [host.name for host in await cloud.client.hosts.list()] == ["renamed", "sim-2"]
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"
    assert (await cloud.booted(host="renamed")).host == "renamed"
    await cloud.deleted(server.id)
    assert server.id not in {guest for _, guest in (await cloud.world()).guests}


async def test_a_host_that_lost_its_uuid_is_another_one_and_destroys_nothing(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    kept, deleted = await cloud.booted(host="sim-1"), await cloud.booted(host="sim-1")
    former = cloud.machine("sim-1").id
    (cloud.machine("sim-1").directory / "host_id").unlink()
    await cloud.stop_host("sim-1")
    await cloud.deleted(deleted.id)
    guests = (await cloud.world()).guests
    cloud.alive = {*cloud.alive - {former}, cloud.machine("sim-1").id}

    await cloud.start_host("sim-1")

    assert cloud.machine("sim-1").id != former
    assert (await cloud.world()).guests == guests == {("sim-1", kept.id), ("sim-1", deleted.id)}
    assert f"spawned by host {former}" in caplog.text
    server = await cloud.client.servers.show(kept.id)
    assert (server.status, server.host_id) == ("ACTIVE", former)
    # It works as a new host, and the old one still owes.
    new = await cloud.booted(host=cloud.machine("sim-1").id)
    assert new.host_id == cloud.machine("sim-1").id
    assert (await cloud.client.hosts.show(former)).owed == 3


async def test_given_its_uuid_again_everything_is_its_own(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    before = await cloud.world()
    file = cloud.machine("sim-1").directory / "host_id"
    uuid = file.read_text()
    file.unlink()
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    file.write_text(uuid)
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    assert (await (await cloud.client.servers.reboot(server.id, hard=True)).result()).status == "ACTIVE"
    assert (await cloud.world()).guests == before.guests


async def test_a_second_machine_with_the_same_uuid_is_refused(cloud: Cloud) -> None:
    await on_machine(cloud, ONE)
    await cloud.start_host("sim-1")
    server = await cloud.booted(host="sim-1")
    world = await cloud.world()

    await on_machine(cloud, ONE)  # one process serves a queue once
    copy = await another(cloud, OTHER)
    with pytest.raises(Conflict, match="another machine is host sim-1") as caught:
        async with serve(cloud.temporal, cloud.settings, [copy]) as duties:
            await duties
    assert f"hostler host new-machine {copy.id}" in str(caught.value.remedy)
    assert await cloud.world() == world

    await cloud.start_host("sim-1")
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"


async def test_an_operator_lets_another_machine_be_the_host_and_then_the_former_is_refused(cloud: Cloud) -> None:
    await on_machine(cloud, ONE)
    await cloud.start_host("sim-1")
    server = await cloud.booted(host="sim-1")

    await cloud.client.hosts.new_machine("sim-1")
    await on_machine(cloud, OTHER)
    await cloud.start_host("sim-1")

    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"
    await on_machine(cloud, OTHER)
    former = await another(cloud, ONE)
    with pytest.raises(Conflict):
        async with serve(cloud.temporal, cloud.settings, [former]) as duties:
            await duties


async def test_registering_without_a_machines_id_forgets_none(cloud: Cloud) -> None:
    """As workers of before did, and machines without one do."""
    await on_machine(cloud, ONE)
    await cloud.start_host("sim-1")
    await cloud.stop_host("sim-1")
    await cloud.start_host("sim-1")
    with cloud.database.read() as session:
        assert session.exec(select(Host.machine_id).where(Host.id == cloud.machine("sim-1").id)).one() == ONE


# What a machine asks before it does anything as a host.


async def test_a_machine_is_admitted_once_and_remembers_it(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.admission, "machine_id", lambda: ONE)
    directory = tmp_path / "real"
    assert not is_admitted(directory)
    await admit(cloud.temporal, directory)
    assert is_admitted(directory)
    monkeypatch.setattr(workers.admission, "machine_id", lambda: OTHER)
    assert not is_admitted(directory), "the directory is on another machine now"


async def test_a_machine_with_a_copied_directory_is_refused_before_it_touches_anything(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on_machine(cloud, ONE)
    await cloud.start_host("sim-1")
    machine = cloud.machine("sim-1")
    note_admission(machine.directory, machine.id, ONE)
    monkeypatch.setattr(workers.admission, "machine_id", lambda: OTHER)
    assert not is_admitted(machine.directory)
    with pytest.raises(Conflict, match="another machine is host sim-1"):
        await admit(cloud.temporal, machine.directory)
    assert was_admitted(machine.directory, machine.id, ONE), "nothing was written into the directory"


async def test_without_an_id_machines_are_not_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.admission, "machine_id", lambda: None)
    assert is_admitted(tmp_path)
