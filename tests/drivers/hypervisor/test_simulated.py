"""The simulated hypervisor: behaves as a real one as far as a host worker can tell, and forgets nothing."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.base import HeldGuest, HypervisorDriver
from drivers.hypervisor.simulated import SimulatedHypervisor
from hostler.contract.errors import InvalidState, NotFound, RescheduleError
from hostler.contract.states import PowerState
from hostler.settings import SimulatedFault
from tests.drivers.hypervisor.simulated import SETTINGS, Taps, guest, ignore


@pytest.fixture
def taps() -> Taps:
    return Taps()


@pytest.fixture
def host(tmp_path: Path, taps: Taps) -> SimulatedHypervisor:
    return SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, taps)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "guests").iterdir())


async def test_it_is_a_hypervisor_driver_with_the_capacity_of_the_settings(host: HypervisorDriver) -> None:
    inventory = await host.inventory()
    assert (inventory.vcpus, inventory.ram_mib, inventory.disk_gib) == (8, 4096, 100)
    assert inventory.hypervisor_type == "simulated"


async def test_a_guest_is_spawned_paused_with_its_ports_plugged(host: SimulatedHypervisor, taps: Taps) -> None:
    spec = guest()
    await host.spawn(spec, None, ignore)
    assert await host.power_state(spec.server_id) is PowerState.PAUSED
    assert taps.up == {spec.ports[0].port_id}
    assert await host.console_log(spec.server_id, 1000) == ""


async def test_a_resumed_guest_comes_to_its_login_line(host: SimulatedHypervisor) -> None:
    spec = guest("db-1")
    await host.spawn(spec, None, ignore)
    await host.resume(spec.server_id)
    assert await host.power_state(spec.server_id) is PowerState.RUNNING
    assert (await host.console_log(spec.server_id, 100_000)).endswith("db-1 login: ")
    assert await host.console_log(spec.server_id, 8) == " login: "


async def test_every_call_may_be_repeated(host: SimulatedHypervisor, taps: Taps, tmp_path: Path) -> None:
    spec = guest()
    for _ in range(2):
        await host.spawn(spec, None, ignore)
    for _ in range(2):
        await host.resume(spec.server_id)
    console = await host.console_log(spec.server_id, 100_000)
    await host.spawn(spec, None, ignore)
    assert await host.power_state(spec.server_id) is PowerState.RUNNING
    assert await host.console_log(spec.server_id, 100_000) == console
    for _ in range(2):
        await host.destroy(spec.server_id)
    assert (await host.guests(), files(tmp_path), taps.up) == ([], [], set())


async def test_a_stopped_guest_holds_its_disk_but_neither_memory_nor_ports(
    host: SimulatedHypervisor, taps: Taps
) -> None:
    spec = guest(ram_mib=1024, disk_gib=10)
    await host.spawn(spec, None, ignore)
    assert (await host.free_ram_mib(), await host.free_disk_gib()) == (3072, 90)
    await host.resume(spec.server_id)
    assert await host.stop(spec.server_id, timedelta(seconds=60), ignore)
    assert (await host.free_ram_mib(), await host.free_disk_gib()) == (4096, 90)
    assert taps.up == set()
    await host.start(spec.server_id)
    assert await host.power_state(spec.server_id) is PowerState.RUNNING
    assert taps.up == {spec.ports[0].port_id}


async def test_stopping_at_once_is_forcing(host: SimulatedHypervisor) -> None:
    spec = guest()
    await host.spawn(spec, None, ignore)
    assert not await host.stop(spec.server_id, timedelta(0), ignore)
    assert await host.stop(spec.server_id, timedelta(0), ignore), "it is off already"


async def test_reset_boots_again_and_starts_what_is_off(host: SimulatedHypervisor) -> None:
    spec = guest()
    await host.spawn(spec, None, ignore)
    await host.resume(spec.server_id)
    await host.reset(spec.server_id)
    assert (await host.console_log(spec.server_id, 100_000)).count("login:") == 2
    await host.stop(spec.server_id, timedelta(0), ignore)
    await host.reset(spec.server_id)
    assert await host.power_state(spec.server_id) is PowerState.RUNNING


async def test_a_guest_that_is_off_cannot_be_resumed(host: SimulatedHypervisor) -> None:
    spec = guest()
    await host.spawn(spec, None, ignore)
    await host.stop(spec.server_id, timedelta(0), ignore)
    with pytest.raises(InvalidState):
        await host.resume(spec.server_id)


async def test_what_the_host_does_not_know_is_not_found_or_already_gone(host: SimulatedHypervisor) -> None:
    nobody = str(uuid4())
    assert await host.power_state(nobody) is PowerState.NOSTATE
    await host.destroy(nobody)
    for call in (host.resume(nobody), host.start(nobody), host.reset(nobody), host.console_log(nobody, 10)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await host.stop(nobody, timedelta(0), ignore)


async def test_guests_and_their_taps_survive_the_death_of_the_process(
    host: SimulatedHypervisor, tmp_path: Path
) -> None:
    running, stopped = guest("web-1"), guest("web-2")
    for spec in (running, stopped):
        await host.spawn(spec, None, ignore)
        await host.resume(spec.server_id)
    await host.stop(stopped.server_id, timedelta(0), ignore)
    taps = Taps()
    reborn = SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, taps)
    assert await reborn.guests() == sorted([running.server_id, stopped.server_id])
    assert await reborn.power_state(running.server_id) is PowerState.RUNNING
    assert await reborn.power_state(stopped.server_id) is PowerState.SHUTDOWN
    assert taps.up == {running.ports[0].port_id}
    assert (await reborn.console_log(running.server_id, 100_000)).endswith("web-1 login: ")


async def test_a_half_written_file_is_no_guest(host: SimulatedHypervisor, tmp_path: Path) -> None:
    (tmp_path / "guests" / f"{uuid4()}.new").write_text('{"server_id": "')
    assert await SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, Taps()).guests() == []


async def test_guests_are_found_by_looking_with_who_spawned_them(tmp_path: Path, taps: Taps) -> None:
    own = str(uuid4())
    host = SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, taps, own)
    spec, half = guest(), str(uuid4())
    await host.spawn(spec, None, ignore)
    (tmp_path / "guests" / f"{half}.json").write_text('{"server_id": "')
    found = [HeldGuest(spec.server_id, PowerState.PAUSED, own), HeldGuest(half, PowerState.NOSTATE, None)]
    assert await host.held() == sorted(found)
    (tmp_path / "guests" / f"{spec.server_id}.json").unlink()
    assert [one.server_id for one in await host.held()] == [half]


async def test_another_hosts_guest_is_found_and_left_alone(tmp_path: Path, taps: Taps) -> None:
    former = str(uuid4())
    spec = guest()
    await SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, taps, former).spawn(spec, None, ignore)
    host = SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, taps, str(uuid4()))
    await host.destroy(spec.server_id)
    with pytest.raises(RescheduleError, match=former):
        await host.spawn(spec, None, ignore)
    assert await host.guests() == []
    assert await host.held() == [HeldGuest(spec.server_id, PowerState.PAUSED, former)]


async def test_a_guest_that_halts_by_itself_is_news_and_one_that_was_stopped_is_not(
    host: SimulatedHypervisor, taps: Taps
) -> None:
    halts, stopped = guest(), guest()
    changes = host.power_changes()
    for spec in (halts, stopped):
        await host.spawn(spec, None, ignore)
        await host.resume(spec.server_id)
    assert await anext(changes) == {halts.server_id, stopped.server_id}
    await host.stop(stopped.server_id, timedelta(0), ignore)
    await host.befall(halts.server_id, PowerState.SHUTDOWN)
    assert await anext(changes) == {halts.server_id}
    assert taps.up == set()
    await host.close()
    assert [one async for one in changes] == []


async def test_no_secret_is_written_down(host: SimulatedHypervisor, tmp_path: Path) -> None:
    await host.spawn(guest(), None, ignore)
    assert "c2VjcmV0" not in "".join(path.read_text() for path in (tmp_path / "guests").iterdir())


async def test_a_fault_strikes_before_anything_is_done(tmp_path: Path, taps: Taps) -> None:
    settings = SETTINGS.model_copy(update={"faults": [SimulatedFault(host="sim-1", call="spawn")]})
    host = SimulatedHypervisor(settings, "sim-1", tmp_path, taps)
    spec = guest()
    with pytest.raises(RescheduleError):
        await host.spawn(spec, None, ignore)
    assert (await host.guests(), files(tmp_path), taps.up) == ([], [], set())
    await host.spawn(spec, None, ignore)
    assert await host.guests() == [spec.server_id]
