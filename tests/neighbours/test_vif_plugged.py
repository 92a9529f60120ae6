"""Events of ports that come twice, too early, too late, for another host, or for nobody."""

from uuid import uuid4

import pytest
from sqlmodel import select

from drivers.network.simulated import SimulatedNetwork
from hostler.client import Operation
from hostler.contract.guests import PortBinding
from hostler.contract.names import server_workflow_id
from hostler.contract.servers import VifPlugged
from models import Port
from tests.cloud import LIMIT, Cloud
from tests.stage import eventually

HELD = "set_task_state"


async def tell(cloud: Cloud, operation: Operation, host: str, port_id: str, run_id: str | None = None) -> None:
    """Say that a host saw the port come up."""
    handle = cloud.temporal.get_workflow_handle(server_workflow_id(operation.server_id), run_id=run_id)
    await handle.signal("vif_plugged", VifPlugged(port_id=port_id, host_id=cloud.machine(host).id))


def port_of(cloud: Cloud, server_id: str) -> str:
    with cloud.database.read() as session:
        return session.exec(select(Port.id).where(Port.server_id == server_id)).one()


def unplugged(cloud: Cloud, host: str, monkeypatch: pytest.MonkeyPatch) -> SimulatedNetwork:
    """A host whose taps do not come up."""
    network = cloud.machine(host).network
    assert isinstance(network, SimulatedNetwork)
    monkeypatch.setattr(network, "plug", lambda port_id: None)
    return network


async def test_an_event_before_anybody_waits_for_it_counts(cloud: Cloud) -> None:
    held = cloud.stage.hold(HELD)  # it runs beside spawn, and the wait comes after both
    boot = await cloud.boot()
    await held.reached.wait()
    await eventually(lambda: "spawn" in cloud.stage.names() and [one.name for one in cloud.stage.under_way] == [HELD])
    held.go_on.set()

    assert (await boot.result(LIMIT)).host == "sim-1"


async def test_an_event_that_comes_again_and_again_lets_the_guest_run_once(cloud: Cloud) -> None:
    held = cloud.stage.hold(HELD)
    boot = await cloud.boot()
    await held.reached.wait()
    for _ in range(3):
        await tell(cloud, boot, "sim-1", port_of(cloud, boot.server_id))
    held.go_on.set()

    await boot.result(LIMIT)
    assert cloud.stage.names().count("resume_guest") == 1


@pytest.mark.parametrize("which", ["another host's", "another port's"])
async def test_an_event_of_something_else_does_not_let_the_guest_run(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    unplugged(cloud, "sim-1", monkeypatch)
    boot = await cloud.boot()
    await cloud.reached(boot, "spawn")
    port = port_of(cloud, boot.server_id)
    await tell(cloud, boot, *(("sim-2", port) if which == "another host's" else ("sim-1", str(uuid4()))))

    server = await boot.result(LIMIT)

    assert server.host == "sim-2", "for on sim-1 the port never came up"
    resumed = [one.host_id for one in cloud.stage.played if one.name == "resume_guest"]
    assert resumed == [cloud.machine("sim-2").id]


async def test_an_event_after_its_attempt_has_been_given_up_changes_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await cloud.world()
    unplugged(cloud, "sim-1", monkeypatch)
    held = cloud.stage.hold("activate")
    boot = await cloud.boot()
    await held.reached.wait()
    await tell(cloud, boot, "sim-1", port_of(cloud, boot.server_id))
    held.go_on.set()

    server = await boot.result(LIMIT)

    assert (server.host, server.status) == ("sim-2", "ACTIVE")
    assert (await cloud.world()).guests == {("sim-2", server.id)}
    await cloud.deleted(server.id)
    assert await cloud.world() == before


async def test_an_event_that_reaches_the_next_operation_changes_nothing(cloud: Cloud) -> None:
    server = await cloud.booted()
    held = cloud.stage.hold("stop_guest")
    stop = await cloud.client.servers.stop(server.id)
    await held.reached.wait()
    await tell(cloud, stop, "sim-1", port_of(cloud, server.id))
    held.go_on.set()

    assert (await stop.result(LIMIT)).status == "SHUTOFF"


async def test_an_event_for_nobody_does_not_hold_up_those_that_follow(cloud: Cloud) -> None:
    """A guest that is started outside of any operation, by a host that was rebooted for instance, is plugged too."""
    gone = await cloud.booted("gone")
    await cloud.deleted(gone.id)
    network = cloud.machine("sim-1").network
    assert isinstance(network, SimulatedNetwork)
    for server_id in (gone.id, str(uuid4())):
        port = PortBinding(
            port_id=str(uuid4()),
            server_id=server_id,
            network_id=str(uuid4()),
            network="net",
            mac="52:54:00:00:00:01",
            ip="10.0.0.9",
            prefix=24,
            gateway="10.0.0.1",
        )
        await network.bind(port)
        network.plug(port.port_id)

    assert (await cloud.booted("next", host="sim-1")).status == "ACTIVE"
