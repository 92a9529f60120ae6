"""Claims: the host's own book, and its veto."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.host.claims import Claims
from activities.interfaces.guests import SetAsideClaim
from activities.interfaces.servers import ServerRef
from drivers.hypervisor.simulated import SimulatedHypervisor
from drivers.network.simulated import SimulatedNetwork
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import ClaimSpec, DiskKind, GuestDisk, GuestSpec
from hostler.contract.resources import Inventory
from hostler.settings import SimulatedFault, SimulatedSettings
from tests.activities.given import uuid

SETTINGS = SimulatedSettings(vcpus=4, ram_mib=1024, disk_gib=10)
INVENTORY = Inventory(
    vcpus=4, ram_mib=1024, disk_gib=10, cpu_ratio=2, architecture="x86_64", hypervisor_type="simulated"
)


@pytest.fixture
def hypervisor(tmp_path: Path) -> SimulatedHypervisor:
    """A host with 1024 MiB and 10 GiB."""
    return SimulatedHypervisor(SETTINGS, "sim-1", tmp_path, SimulatedNetwork(SETTINGS, "sim-1", tmp_path))


def book(directory: Path, hypervisor: SimulatedHypervisor, **inventory: Any) -> Claims:
    """The host's book, as a worker that starts opens it."""
    return Claims(directory / "claims", INVENTORY.model_copy(update=inventory), hypervisor)


def claim(**changes: int) -> ClaimSpec:
    """Half of the host's memory."""
    return ClaimSpec(server_id=uuid(), **{"vcpus": 1, "ram_mib": 512, "disk_gib": 1} | changes)


async def test_a_claim_outlives_the_worker(tmp_path: Path, hypervisor: SimulatedHypervisor) -> None:
    await book(tmp_path, hypervisor).claim_resources(claim())
    again = book(tmp_path, hypervisor)
    await again.claim_resources(claim())
    with pytest.raises(RescheduleError, match="512 MiB of RAM wanted, 0 left"):
        await again.claim_resources(claim())


async def test_claimed_twice_it_counts_once(tmp_path: Path, hypervisor: SimulatedHypervisor) -> None:
    claims, mine = book(tmp_path, hypervisor), claim()
    for _ in range(3):
        await claims.claim_resources(mine)
    await claims.claim_resources(claim())


@pytest.mark.parametrize(
    ("wanted", "what"),
    [({"vcpus": 9}, "vCPUs"), ({"ram_mib": 1025}, "RAM"), ({"disk_gib": 11}, "disk")],
)
async def test_the_host_has_a_veto(
    tmp_path: Path, hypervisor: SimulatedHypervisor, wanted: dict[str, int], what: str
) -> None:
    claims = book(tmp_path, hypervisor)
    refused = claim(**wanted)
    with pytest.raises(RescheduleError, match=what):
        await claims.claim_resources(refused)
    assert claims.held() == claims.strays() == []
    await claims.claim_resources(refused.model_copy(update={"vcpus": 8, "ram_mib": 1024, "disk_gib": 10}))


async def test_what_is_reserved_is_not_given_away(tmp_path: Path, hypervisor: SimulatedHypervisor) -> None:
    claims = book(tmp_path, hypervisor, reserved_ram_mib=513)
    with pytest.raises(RescheduleError):
        await claims.claim_resources(claim())


async def test_reality_counts_too(tmp_path: Path, hypervisor: SimulatedHypervisor) -> None:
    root = GuestDisk(kind=DiskKind.ROOT, device="vda", size_bytes=2**30)
    stranger = GuestSpec(server_id=uuid(), name="x", project="x", flavor="x", vcpus=1, ram_mib=600, disks=[root])
    await hypervisor.spawn(stranger, None, lambda _: None)
    with pytest.raises(RescheduleError, match="512 MiB of RAM wanted, 424 left"):
        await book(tmp_path, hypervisor).claim_resources(claim())
    await book(tmp_path, hypervisor, ram_ratio=2.0).claim_resources(claim())


async def test_dropped_twice_it_is_free_again(tmp_path: Path, hypervisor: SimulatedHypervisor) -> None:
    claims, mine = book(tmp_path, hypervisor), claim(ram_mib=1024)
    await claims.claim_resources(mine)
    for _ in range(2):
        await claims.drop_claim(ServerRef(server_id=mine.server_id))
    await claims.claim_resources(claim(ram_mib=1024))


async def test_a_claim_that_was_never_made_is_dropped_without_complaint(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    await book(tmp_path, hypervisor).drop_claim(ServerRef(server_id=uuid()))


# Former claims.


def of(spec: ClaimSpec, *, leaves: bool = False) -> SetAsideClaim:
    """Its server."""
    return SetAsideClaim(server_id=spec.server_id, leaves=leaves)


async def test_a_claim_that_was_set_aside_still_counts_also_for_the_next_worker(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, mine = book(tmp_path, hypervisor), claim(ram_mib=1024)
    await claims.claim_resources(mine)
    for _ in range(2):
        await claims.set_aside_claim(of(mine))

    again = book(tmp_path, hypervisor)

    assert (again.held(), again.formers(), again.strays()) == ([], [mine.server_id], [])
    for one in (claims, again):
        with pytest.raises(RescheduleError, match="512 MiB of RAM wanted, 0 left"):
            await one.claim_resources(claim())


async def test_the_claim_of_what_no_other_host_could_fetch_is_set_aside_only_where_it_may_stay(tmp_path: Path) -> None:
    refuses = SimulatedFault(host="sim-1", call="check_leaving", kind="reschedule", message="no way", times=-1)
    settings = SETTINGS.model_copy(update={"faults": [refuses]})
    hypervisor = SimulatedHypervisor(settings, "sim-1", tmp_path, SimulatedNetwork(settings, "sim-1", tmp_path))
    claims, mine = book(tmp_path, hypervisor), claim()
    await claims.claim_resources(mine)

    with pytest.raises(RescheduleError, match="no way"):
        await claims.set_aside_claim(of(mine, leaves=True))
    assert (claims.held(), claims.formers()) == ([mine.server_id], [])
    await claims.set_aside_claim(of(mine))

    assert (claims.held(), claims.formers()) == ([], [mine.server_id])


async def test_beside_its_former_claim_a_server_may_have_another_if_both_have_room(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, mine = book(tmp_path, hypervisor), claim()
    await claims.claim_resources(mine)
    await claims.set_aside_claim(of(mine))

    with pytest.raises(RescheduleError, match="513 MiB of RAM wanted, 512 left"):
        await claims.claim_resources(mine.model_copy(update={"ram_mib": 513}))
    await claims.claim_resources(mine.model_copy(update={"ram_mib": 512}))

    assert claims.held() == claims.formers() == [mine.server_id]


async def test_set_aside_again_the_new_claim_does_not_take_the_former_ones_place(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, mine = book(tmp_path, hypervisor), claim(ram_mib=100)
    await claims.claim_resources(mine)
    await claims.set_aside_claim(of(mine))
    await claims.claim_resources(mine.model_copy(update={"ram_mib": 200}))

    await claims.set_aside_claim(of(mine))
    await claims.drop_claim(of(mine))

    await claims.claim_resources(claim(ram_mib=1024 - 100))


@pytest.mark.parametrize("durable", [True, False])
async def test_brought_back_it_takes_the_place_of_the_one_that_came_after_it(
    tmp_path: Path, hypervisor: SimulatedHypervisor, durable: bool
) -> None:
    claims, mine = Claims(tmp_path / "claims", INVENTORY, hypervisor, durable), claim(ram_mib=100)
    await claims.claim_resources(mine)
    await claims.set_aside_claim(of(mine))
    await claims.claim_resources(mine.model_copy(update={"ram_mib": 200}))

    for _ in range(2):
        await claims.bring_back_claim(of(mine))

    assert (claims.held(), claims.formers()) == ([mine.server_id], [])
    for one in (book(tmp_path, hypervisor), claims):
        filler = claim(ram_mib=1024 - 100)
        await one.claim_resources(filler)
        await one.drop_claim(of(filler))


async def test_dropped_a_former_claim_is_free_again_and_the_present_one_stays(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, mine = book(tmp_path, hypervisor), claim(ram_mib=800)
    await claims.claim_resources(mine)
    await claims.set_aside_claim(of(mine))
    await claims.claim_resources(mine.model_copy(update={"ram_mib": 100}))

    for _ in range(2):
        await claims.drop_former_claim(of(mine))

    assert (claims.held(), claims.formers()) == ([mine.server_id], [])
    await claims.claim_resources(claim(ram_mib=1024 - 100))


async def test_dropping_the_present_claim_leaves_the_former_one(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, mine = book(tmp_path, hypervisor), claim()
    await claims.claim_resources(mine)
    await claims.set_aside_claim(of(mine))

    await claims.drop_claim(of(mine))

    assert (claims.held(), claims.formers()) == ([], [mine.server_id])


async def test_what_was_never_claimed_is_set_aside_brought_back_and_dropped_without_complaint(
    tmp_path: Path, hypervisor: SimulatedHypervisor
) -> None:
    claims, stranger = book(tmp_path, hypervisor), SetAsideClaim(server_id=uuid())

    for step in (claims.set_aside_claim, claims.bring_back_claim, claims.drop_former_claim):
        await step(stranger)

    assert claims.held() == claims.formers() == []


async def test_a_file_that_is_no_claim_is_told_of_in_either_place(
    tmp_path: Path, hypervisor: SimulatedHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = book(tmp_path, hypervisor)
    monkeypatch.setattr("drivers.strays.SETTLED", timedelta(0))
    (tmp_path / "claims" / f"{uuid()}.json").write_text("{")
    (tmp_path / "claims" / "former" / "notes").write_text("")

    assert len(claims.strays()) == 2
    assert claims.held() == claims.formers() == []
