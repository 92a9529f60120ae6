"""What a simulated root disk holds stays what it is: set aside, in a snapshot, on the next host."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from drivers.hypervisor.base import HeldGuest
from drivers.image.inspection import inspect
from hostler.contract.errors import Conflict, InvalidState, NotFound, RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, ImageRef
from hostler.contract.resources import DiskFormat
from hostler.settings import SimulatedFault
from tests.drivers.hypervisor.simulated import (
    NOSTATE,
    ONE,
    OTHER,
    PAUSED,
    RUNNING,
    SETTINGS,
    SHUTDOWN,
    Host,
    guest,
    ignore,
)


def image(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


class TestContent:
    async def test_is_what_the_image_says_on_its_first_line(self, one: Host, tmp_path: Path) -> None:
        spec = guest()
        await one.driver.spawn(spec, image(tmp_path / "image", b"hostler simulated disk of web-1\nmore"), ignore)
        assert one.content(spec.server_id) == "of web-1"

    async def test_is_the_servers_own_and_the_images_where_that_says_nothing(self, one: Host, tmp_path: Path) -> None:
        ref = ImageRef(id=str(uuid4()), disk_format=DiskFormat.RAW, size_bytes=1, virtual_size_bytes=1, checksum="")
        root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=1 << 30, image=ref)
        blank, made, other = guest(), guest(), guest()
        made.disks = other.disks = [root]
        base = image(tmp_path / "image", b"\xeb\x63\x90")
        for spec in (blank, made, other):
            await one.driver.spawn(spec, base if spec.disks[0].image else None, ignore)
        contents = {one.content(spec.server_id) for spec in (blank, made, other)}
        assert len(contents) == 3
        before = one.content(made.server_id)
        await one.driver.destroy(made.server_id)
        await one.driver.spawn(made, base, ignore)
        assert one.content(made.server_id) == before


class TestAside:
    async def test_a_guest_that_is_set_aside_is_off_gives_its_memory_back_and_keeps_its_disk(
        self, one: Host, running: GuestSpec
    ) -> None:
        before = one.content(running.server_id)
        for _ in range(2):
            await one.driver.set_aside(running.server_id)
            one.reborn()
            assert await one.driver.guests() == []
            assert await one.driver.held() == []
            assert await one.driver.strays() == []
            assert await one.driver.formers() == [running.server_id]
            assert (await one.driver.free_ram_mib(), await one.driver.free_disk_gib()) == (4096, 95)
            assert one.taps.up == set()
        await one.driver.bring_back(running.server_id)
        assert await one.driver.power_state(running.server_id) is SHUTDOWN
        assert one.content(running.server_id) == before

    async def test_it_comes_back_whatever_was_in_its_place(self, one: Host, running: GuestSpec) -> None:
        await one.driver.set_aside(running.server_id)
        bigger = running.model_copy(update={"ram_mib": 1024})
        await one.driver.spawn(bigger, None, ignore)
        assert await one.driver.free_disk_gib() == 90
        for _ in range(2):
            await one.driver.bring_back(running.server_id)
            assert await one.driver.power_state(running.server_id) is SHUTDOWN
            assert await one.driver.formers() == []
            assert one.taps.up == set()
        one.reborn()
        await one.driver.start(running.server_id)
        assert await one.driver.free_ram_mib() == 4096 - 512
        await one.driver.bring_back(running.server_id)
        assert await one.driver.power_state(running.server_id) is RUNNING, "nobody was set aside"

    async def test_one_that_is_dropped_leaves_no_trace_and_the_next_one_stays(
        self, one: Host, running: GuestSpec
    ) -> None:
        await one.driver.set_aside(running.server_id)
        await one.driver.spawn(running, None, ignore)
        await one.driver.destroy(str(uuid4()))
        for _ in range(2):
            await one.driver.drop_former(running.server_id)
            assert await one.driver.formers() == []
            assert await one.driver.power_state(running.server_id) is PAUSED
        one.reborn()
        assert await one.driver.formers() == []

    async def test_destroying_the_next_one_spares_it(self, one: Host, running: GuestSpec) -> None:
        await one.driver.set_aside(running.server_id)
        await one.driver.spawn(running, None, ignore)
        await one.driver.destroy(running.server_id)
        assert await one.driver.formers() == [running.server_id]

    async def test_there_must_be_one_and_only_one(self, one: Host, running: GuestSpec) -> None:
        with pytest.raises(NotFound):
            await one.driver.set_aside(str(uuid4()))
        await one.driver.set_aside(running.server_id)
        await one.driver.spawn(running, None, ignore)
        with pytest.raises(Conflict):
            await one.driver.set_aside(running.server_id)

    async def test_its_power_is_no_news(self, one: Host, running: GuestSpec) -> None:
        changes = one.driver.power_changes()
        assert await anext(changes) == {running.server_id}
        await one.driver.set_aside(running.server_id)
        await one.driver.bring_back(running.server_id)
        await one.driver.start(running.server_id)
        await one.driver.befall(running.server_id, SHUTDOWN)
        assert await anext(changes) == {running.server_id}
        await changes.aclose()

    async def test_another_hosts_is_left_alone(self, one: Host, running: GuestSpec) -> None:
        await one.driver.set_aside(running.server_id)
        reimaged = Host(one.directory, OTHER)
        assert await reimaged.driver.formers() == []
        await reimaged.driver.bring_back(running.server_id)
        await reimaged.driver.drop_former(running.server_id)
        one.reborn()
        assert await one.driver.formers() == [running.server_id]


class TestSnapshot:
    async def test_gives_its_content_to_the_guests_that_are_made_of_it(
        self, one: Host, other: Host, running: GuestSpec, tmp_path: Path
    ) -> None:
        target = image(tmp_path / "snapshot", b"of an earlier try" * (1 << 20))
        assert await one.driver.snapshot(running.server_id, target, False, ignore) is DiskFormat.RAW
        assert inspect(target, DiskFormat.RAW, "snapshot") == 1 << 20
        assert await one.driver.power_state(running.server_id) is RUNNING
        twin = guest("web-2")
        await other.driver.spawn(twin, target, ignore)
        assert other.content(twin.server_id) == one.content(running.server_id)

    async def test_a_guest_has_no_agent_that_could_quiesce_it(
        self, one: Host, running: GuestSpec, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidState):
            await one.driver.snapshot(running.server_id, tmp_path / "snapshot", True, ignore)
        with pytest.raises(NotFound):
            await one.driver.snapshot(str(uuid4()), tmp_path / "snapshot", False, ignore)


class TestMove:
    async def test_a_guest_is_on_the_next_host_what_it_was(self, one: Host, other: Host, running: GuestSpec) -> None:
        before = one.content(running.server_id)
        await one.driver.set_aside(running.server_id)
        offer = await one.driver.offer_disks(running.server_id, False, ignore)
        assert await one.reborn().offer_disks(running.server_id, False, ignore) == offer
        for _ in range(2):
            await other.driver.receive_disks(offer, ignore)
            other.reborn()
            assert await other.driver.held() == [HeldGuest(running.server_id, NOSTATE, OTHER)]
            assert await other.driver.guests() == []
        received = running.model_copy(update={"received": True})
        for _ in range(2):
            await other.driver.spawn(received, None, ignore)
            assert await other.driver.held() == [HeldGuest(running.server_id, PAUSED, OTHER)]
        assert other.content(running.server_id) == before
        assert not list((other.directory / "incoming").iterdir())

    async def test_disks_that_have_not_arrived_make_no_guest(self, other: Host) -> None:
        spec = guest().model_copy(update={"received": True})
        with pytest.raises(RescheduleError, match="have not arrived"):
            await other.driver.spawn(spec, None, ignore)
        assert await other.driver.held() == []

    async def test_what_was_received_goes_with_the_guest(self, one: Host, other: Host, running: GuestSpec) -> None:
        await one.driver.set_aside(running.server_id)
        await other.driver.receive_disks(await one.driver.offer_disks(running.server_id, False, ignore), ignore)
        await other.driver.destroy(running.server_id)
        assert await other.driver.held() == []

    async def test_an_offer_ends_with_what_it_is_of_and_is_listed_until_then(
        self, one: Host, running: GuestSpec
    ) -> None:
        with pytest.raises(NotFound):
            await one.driver.offer_disks(running.server_id, False, ignore)
        ends: list[Callable[[str], Awaitable[None]]] = [
            one.driver.withdraw_offer,
            one.driver.bring_back,
            one.driver.drop_former,
        ]
        for end in ends:
            if await one.driver.guests():
                await one.driver.set_aside(running.server_id)
            await one.driver.offer_disks(running.server_id, False, ignore)
            assert one.file("offers", running.server_id).exists()
            await end(running.server_id)
            assert not one.file("offers", running.server_id).exists()
        assert await one.driver.formers() == []


async def test_faults_strike_each_of_these_calls(tmp_path: Path, running: GuestSpec) -> None:
    calls = [
        "set_aside",
        "bring_back",
        "drop_former",
        "formers",
        "snapshot",
        "offer_disks",
        "withdraw_offer",
        "receive_disks",
    ]
    settings = SETTINGS.model_copy(update={"faults": [SimulatedFault(host="*", call=call) for call in calls]})
    driver = Host(tmp_path / "faulty", ONE, settings).driver
    arguments: dict[str, tuple[object, ...]] = {
        "formers": (),
        "snapshot": (running.server_id, tmp_path / "snapshot", False, ignore),
        "offer_disks": (running.server_id, False, ignore),
        "receive_disks": (None, ignore),
    }
    for call in calls:
        with pytest.raises(RescheduleError, match="simulated fault"):
            await getattr(driver, call)(*arguments.get(call, (running.server_id,)))
    assert not (tmp_path / "snapshot").exists()
