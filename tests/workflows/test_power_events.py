"""A server follows what its guest does by itself, at once; one that is busy is left to its operation first."""

import pytest

from activities.control.power import PowerReports
from drivers.hypervisor.simulated import SimulatedHypervisor
from hostler.contract.calls import GuestPower, PowerReport
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from tests.cloud import Cloud
from tests.stage import eventually

RUNNING, SHUTDOWN = PowerState.RUNNING, PowerState.SHUTDOWN
REPORT = "report_power_states"


async def befalls(cloud: Cloud, server: Server, state: PowerState) -> None:
    """The guest comes into this state by itself."""
    assert server.host is not None
    hypervisor = cloud.machine(server.host).hypervisor
    assert isinstance(hypervisor, SimulatedHypervisor)
    await hypervisor.befall(server.id, state)


def state(cloud: Cloud, server: Server) -> tuple[str, str]:
    """The server's state and its guest's."""
    row = cloud.row(server.id)
    assert row is not None
    return row.vm_state, row.power_state


async def becomes(cloud: Cloud, server: Server, *wanted: str) -> None:
    """Return when the server is that."""
    await eventually(lambda: state(cloud, server) == wanted)


async def events(cloud: Cloud, server: Server) -> list[tuple[str, str | None, str | None]]:
    """What the server's history has of its guest's own doing."""
    found = await cloud.client.servers.events(server.id)
    return [(one.step.name, one.step.host, one.step.note) for one in found if one.operation == "hypervisor"]


async def test_a_guest_that_powers_itself_off_and_on_takes_its_server_along(cloud: Cloud) -> None:
    server = await cloud.booted()
    await befalls(cloud, server, SHUTDOWN)
    await becomes(cloud, server, "stopped", "shutdown")
    assert (await cloud.client.servers.show(server.id)).status == "SHUTOFF"
    await befalls(cloud, server, RUNNING)
    await becomes(cloud, server, "active", "running")
    assert await events(cloud, server) == [
        ("power-state", "sim-1", "its guest is shutdown, was running: SHUTOFF, was ACTIVE"),
        ("power-state", "sim-1", "its guest is running, was shutdown: ACTIVE, was SHUTOFF"),
    ]
    assert (await (await cloud.client.servers.stop(server.id)).result()).status == "SHUTOFF"


@pytest.mark.parametrize("seen", [PowerState.PAUSED, PowerState.CRASHED])
async def test_what_no_state_of_a_server_says_shows_in_its_power_state(cloud: Cloud, seen: PowerState) -> None:
    server = await cloud.booted()
    await befalls(cloud, server, seen)
    await becomes(cloud, server, "active", seen)


async def test_operations_are_no_news(cloud: Cloud) -> None:
    await cloud.booted("other")  # what a worker reports when it starts is over
    server = await cloud.booted()
    for operation in (cloud.client.servers.stop, cloud.client.servers.start, cloud.client.servers.reboot):
        await (await operation(server.id)).result()
    await cloud.deleted(server.id)
    assert REPORT not in cloud.stage.names()
    assert await events(cloud, server) == []


async def test_what_happens_while_the_worker_is_away_is_reported_when_it_is_back(cloud: Cloud) -> None:
    off, on = await cloud.booted(host="sim-1"), await cloud.booted(host="sim-1")
    await cloud.stop_host("sim-1")
    await befalls(cloud, off, SHUTDOWN)
    await cloud.start_host("sim-1")
    await becomes(cloud, off, "stopped", "shutdown")
    assert state(cloud, on) == ("active", "running")
    assert await events(cloud, on) == []


async def test_a_server_that_is_busy_is_left_to_its_operation_and_followed_afterwards(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("settle")
    stop = await cloud.client.servers.stop(server.id)
    await held.reached.wait()
    await befalls(cloud, server, RUNNING)
    await eventually(lambda: REPORT in cloud.stage.names())
    assert state(cloud, server) == ("active", "running"), "as it was before the stop"
    held.go_on.set()
    assert (await stop.result()).status == "SHUTOFF"
    await becomes(cloud, server, "active", "running")


async def test_a_report_that_cannot_be_delivered_is_sent_when_it_can_as_it_is_then(cloud: Cloud) -> None:
    server = await cloud.booted()
    await cloud.stop_control()
    await befalls(cloud, server, SHUTDOWN)
    await befalls(cloud, server, PowerState.PAUSED)
    await cloud.start_control()
    await becomes(cloud, server, "active", "paused")


async def test_only_the_servers_own_host_is_believed_and_repetition_is_no_event(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    reports = PowerReports(cloud.database)

    def report(host: str, power_state: PowerState) -> list[str]:
        guests = [GuestPower(server_id=server.id, power_state=power_state)]
        return reports.report_power_states(PowerReport(host_id=cloud.machine(host).id, guests=guests)).busy

    assert report("sim-2", SHUTDOWN) == []
    assert state(cloud, server) == ("active", "running")
    for _ in range(3):
        assert report("sim-1", SHUTDOWN) == []
    assert state(cloud, server) == ("stopped", "shutdown")
    assert len(await events(cloud, server)) == 1
    await cloud.deleted(server.id)
    assert report("sim-1", RUNNING) == []
    assert state(cloud, server) == ("deleted", "nostate")


async def test_a_report_that_was_on_its_way_while_an_operation_came_and_went_is_doubted(cloud: Cloud) -> None:
    server = await cloud.booted()
    late = PowerReport(
        host_id=server.host_id or "", guests=[GuestPower(server_id=server.id, power_state=RUNNING)], confirms=True
    )
    await (await cloud.client.servers.stop(server.id)).result()

    receipt = PowerReports(cloud.database).report_power_states(late)

    assert state(cloud, server) == ("stopped", "shutdown")
    assert list(receipt.doubted) == [server.id]
    [guest] = late.guests
    confirmed = late.model_copy(update={"guests": [guest.model_copy(update={"version": receipt.doubted[server.id]})]})
    assert PowerReports(cloud.database).report_power_states(confirmed).doubted == {}
    assert state(cloud, server) == ("active", "running")
    assert list(PowerReports(cloud.database).report_power_states(confirmed).doubted) == []
