"""Boots that meet hosts which fail: the next host is taken, nothing stays behind, and the fault tells the story."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError

import workflows.boot
from hostler.contract.errors import BuildFailed, ImageRejected, NoValidHost, OperationFailed, RescheduleError
from hostler.contract.servers import StepStatus
from tests.cloud import Cloud, breaks, refuses
from tests.rows import a_host
from tests.workflows.conftest import StartCloud
from workflows.building import SPAWN
from workflows.steps import HOST_RETRY

# The driver's call in which a host can refuse, and the step that it is part of.
REFUSALS = {"free_ram_mib": "claim_resources", "bind": "bind_ports", "spawn": "spawn", "resume": "resume_guest"}


@pytest.mark.sampled
@pytest.mark.parametrize("call", REFUSALS)
async def test_a_host_that_refuses_is_left_clean_and_the_next_one_taken(start_cloud: StartCloud, call: str) -> None:
    cloud = await start_cloud(faults=[refuses("sim-1", call)])
    operation = await cloud.boot()

    server = await operation.result()

    assert (server.status, server.host) == ("ACTIVE", "sim-2")
    world = await cloud.world()
    assert world.allocations == world.claims == world.guests == world.bound_ports == {("sim-2", server.id)}
    assert world.ports == {(server.id, "10.0.0.2")}
    progress = await cloud.progress(operation)
    failed = [(s.name, s.host, s.attempt, s.error) for s in progress.steps if s.error]
    assert failed == [(REFUSALS[call], "sim-1", 1, f"{call} refused by sim-1")]
    undone = {s.name for s in progress.steps if s.attempt == 1 and s.status is StepStatus.UNDONE}
    assert {"schedule", "claim_resources"} <= undone
    assert progress.attempt == 2
    await cloud.deleted(server.id)
    assert (await cloud.world()).owed == frozenset()


async def test_ports_are_kept_from_one_host_to_the_next(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[refuses("sim-1", "spawn")])

    await cloud.booted()

    assert cloud.stage.names().count("allocate_ports") == 1
    assert cloud.stage.names().count("release_ports") == 0


async def test_a_step_that_breaks_is_tried_again_on_the_same_host_first(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[breaks("sim-1", "spawn", times=2)])

    server = await cloud.booted()

    assert (server.host, cloud.stage.names().count("spawn")) == ("sim-1", 3)


async def test_when_all_hosts_fail_the_fault_tells_what_each_said(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[refuses("sim-1", "spawn"), refuses("sim-2", "bind")], max_attempts=2)
    before = await cloud.world()
    operation = await cloud.boot()

    failure = await cloud.failure(operation)

    assert isinstance(failure, BuildFailed)
    assert [(a.attempt, a.host, a.step, a.reason) for a in failure.detail.attempts] == [
        (1, "sim-1", "spawn", "spawn refused by sim-1"),
        (2, "sim-2", "bind_ports", "bind refused by sim-2"),
    ]
    server = await cloud.client.servers.show(operation.server_id)
    assert (server.status, server.task_state, server.host, server.addresses) == ("ERROR", None, None, [])
    assert server.fault is not None
    assert server.fault.error == failure.detail
    assert (await cloud.world()).besides(server.id) == before.besides(server.id)
    events = await cloud.client.servers.events(server.id)
    assert [e.step.name for e in events if e.step.status is StepStatus.FAILED] == []
    assert [e.step.name for e in events if e.step.error] == ["spawn", "bind_ports"]
    await cloud.deleted(server.id)
    assert await cloud.world() == before


async def test_when_no_host_is_left_the_fault_tells_of_those_that_were_tried(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(hosts=1, faults=[refuses("sim-1", "spawn")])

    failure = await cloud.failure(await cloud.boot())

    assert isinstance(failure, NoValidHost)
    assert [a.host for a in failure.detail.attempts] == ["sim-1"]
    assert failure.detail.hosts_considered == 1
    assert sum(report.removed for report in failure.detail.filters) == 1


async def test_as_many_hosts_are_tried_as_the_request_says(start_cloud: StartCloud) -> None:
    cloud = await start_cloud(faults=[refuses("sim-*", "spawn")])

    failure = await cloud.failure(await cloud.boot(max_attempts=1))

    assert len(failure.detail.attempts) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"flavor": "huge"}, "16384 MiB of RAM"), ({"host": "sim-2", "availability_zone": "moon"}, "zone")],
    ids=["too large", "contradictory"],
)
async def test_a_server_that_fits_nowhere_says_what_became_of_each_host(
    cloud: Cloud, options: dict[str, str], reason: str
) -> None:
    cloud.add(a_host(name="lander", zone="moon"))
    before = await cloud.world()
    operation = await cloud.boot(**options)

    failure = await cloud.failure(operation)

    assert isinstance(failure, NoValidHost)
    assert failure.detail.hosts_considered == 3
    assert sum(report.removed for report in failure.detail.filters) == 3
    assert any(reason.lower() in report.reason.lower() for report in failure.detail.filters)
    server = await cloud.client.servers.show(operation.server_id)
    assert (server.status, server.fault and server.fault.error) == ("ERROR", failure.detail)
    assert (await cloud.world()).besides(server.id) == before.besides(server.id)


async def test_an_image_that_no_host_may_open_ends_the_boot_at_once(cloud: Cloud) -> None:
    before = await cloud.world()
    for file in cloud.settings.images_dir.iterdir():
        file.write_bytes(b"\0" * file.stat().st_size)
    operation = await cloud.boot()

    failure = await cloud.failure(operation)

    assert isinstance(failure, ImageRejected)
    assert [(a.host, a.step) for a in failure.detail.attempts] == [("sim-1", "fetch_image")]
    assert (await cloud.world()).besides(operation.server_id) == before.besides(operation.server_id)


async def test_an_image_that_one_host_does_not_see_may_be_seen_by_another(cloud: Cloud) -> None:
    cloud.stage.fail("fetch_image", RescheduleError("not here"))
    assert (await cloud.booted()).host == "sim-2"


# Hosts that are silent.


async def test_a_host_that_does_not_answer_is_passed_over_and_owes_what_could_not_be_undone(cloud: Cloud) -> None:
    await cloud.stop_host("sim-1")

    operation = await cloud.boot()
    server = await operation.result()

    assert server.host == "sim-2"
    assert (await cloud.world()).owed == {("sim-1", "drop_claim")}
    owed = [step for step in (await cloud.progress(operation)).steps if step.status is StepStatus.OWED]
    assert [(step.name, step.host) for step in owed] == [("claim_resources", "sim-1")]
    assert "nothing ran there" in (owed[0].error or "")


async def test_a_host_that_owes_takes_no_new_server_until_it_has_done_it(cloud: Cloud) -> None:
    before = await cloud.world()
    await cloud.stop_host("sim-1")
    servers = [await cloud.booted(), await cloud.booted()]
    assert [server.host for server in servers] == ["sim-2", "sim-2"]
    assert cloud.stage.names().count("owe") == 1

    held = cloud.stage.hold("drop_claim")
    await cloud.start_host_without_waiting("sim-1")
    await held.reached.wait()
    servers.append(await cloud.booted())
    held.go_on.set()
    await cloud.registered("sim-1")

    assert servers[-1].host == "sim-2"
    assert (await cloud.world()).owed == frozenset()
    servers.append(await cloud.booted(host="sim-1"))
    for server in servers:
        await cloud.deleted(server.id)
    assert await cloud.world() == before


async def test_a_host_that_dies_with_a_guest_on_it_removes_it_when_it_is_back(cloud: Cloud) -> None:
    held = cloud.stage.hold("bind_ports")
    cloud.stage.fail("bind_ports", RescheduleError("no bridge"))
    operation = await cloud.boot()
    await held.reached.wait()
    undo = cloud.stage.hold("unbind_ports")
    held.go_on.set()
    await undo.reached.wait()
    await cloud.stop_host("sim-1")  # in the middle of the undo

    server = await operation.result()

    assert server.host == "sim-2"
    assert ("sim-1", "drop_claim") in (await cloud.world()).owed
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert not world.owed
    assert world.claims == {("sim-2", server.id)}


async def test_a_step_that_falls_silent_on_one_host_is_undone_there_before_the_next_is_taken(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = replace(SPAWN, timeout=timedelta(seconds=1), heartbeat=None)
    monkeypatch.setattr(workflows.boot, "SPAWN", impatient)
    monkeypatch.setattr("workflows.runner.HOST_RETRY", replace(HOST_RETRY, maximum_attempts=1))
    held = cloud.stage.hold("spawn")

    operation = await cloud.boot()
    server = await operation.result()
    held.go_on.set()

    assert server.host == "sim-2"
    [silent] = [s for s in (await cloud.progress(operation)).steps if s.error]
    assert (silent.name, silent.error) == ("spawn", "host sim-1 took too long")
    assert silent.status is StepStatus.UNDONE


async def test_a_port_that_is_never_plugged_sends_the_server_to_the_next_host(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud.machine("sim-1").network, "plug", lambda port_id: None)

    operation = await cloud.boot()
    server = await operation.result()

    assert server.host == "sim-2"
    [late] = [s for s in (await cloud.progress(operation)).steps if s.error]
    assert late.name == "wait_vif_plugged"
    assert "no vif-plugged event within 2 s" in (late.error or "")


async def test_a_guest_that_may_be_running_is_not_built_a_second_time(cloud: Cloud) -> None:
    held = cloud.stage.hold("resume_guest")
    operation = await cloud.boot()
    await held.reached.wait()
    await cloud.stop_host("sim-1")

    failure = await cloud.failure(operation)

    assert isinstance(failure, BuildFailed)
    assert "may be running on host sim-1" in str(failure)
    assert cloud.stage.names().count("spawn") == 1
    assert {work for _, work in (await cloud.world()).owed} == {"destroy_guest", "unbind_ports", "drop_claim"}
    await cloud.start_host("sim-1")
    world = await cloud.world()
    assert not world.owed | world.guests | world.claims | world.bound_ports


async def test_a_boot_whose_acceptance_broke_holds_nothing(cloud: Cloud) -> None:
    before = await cloud.world()
    server_id = str(uuid4())
    cloud.stage.fail("accept", ApplicationError("a defect", non_retryable=True), afterwards=True)

    with pytest.raises(OperationFailed, match="a defect"):
        await cloud.boot(server_id=server_id)

    assert (await cloud.client.servers.show(server_id)).status == "ERROR"
    assert (await cloud.world()).besides(server_id) == before.besides(server_id)


@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_guest_that_runs_is_activated_whatever_the_last_step_fails_with(cloud: Cloud, afterwards: bool) -> None:
    cloud.stage.fail("activate", ApplicationError("a defect", non_retryable=True), afterwards=afterwards)

    server = await cloud.booted()

    assert (server.status, server.power_state) == ("ACTIVE", "running")
    assert (await cloud.world()).guests == {("sim-1", server.id)}
