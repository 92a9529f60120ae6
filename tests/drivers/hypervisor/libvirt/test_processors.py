"""The processor that the settings name: guests get it, or the worker does not start."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.network.local import LocalNetwork
from hostler.contract.errors import InvalidRequest, RescheduleError
from hostler.contract.guests import GuestSpec
from hostler.settings import HostSettings, LibvirtSettings, Settings
from tests.drivers.hypervisor.libvirt.guests import domain_of, guest, ignore, root_disk
from workers.machine import make_machines
from workers.preflight import check_kvm

pytestmark = pytest.mark.real
# One that translation offers, and that is not what guests get without the setting.
WESTMERE = LibvirtSettings(virt_type="qemu", cpu_model="Westmere")


@pytest.fixture
async def named(state_dir: Path, host_id: str, hypervisor: LibvirtHypervisor) -> AsyncIterator[LibvirtHypervisor]:
    """The next worker of the host, whose settings name a processor."""
    driver = LibvirtHypervisor(WESTMERE, HostSettings(), state_dir, host_id)
    yield driver
    await driver.close()


def processor(spec: GuestSpec) -> tuple[str | None, str | None]:
    """What the guest runs on, by libvirt's word."""
    cpu = etree.fromstring(domain_of(spec).XMLDesc()).find("cpu")
    assert cpu is not None
    return cpu.get("mode"), cpu.findtext("model")


async def test_guests_run_on_the_processor_that_the_settings_name_and_another_such_host_would_take_them(
    named: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await named.inventory()
    await named.spawn(tiny, tiny_image, ignore)
    await named.resume(tiny.server_id)

    assert processor(tiny) == ("custom", "Westmere")
    described = await named.describe(tiny.server_id)
    with pytest.raises(RescheduleError, match="no guest can come from another host"):  # which is asked after that
        await named.prepare_incoming(guest(root_disk()), described, None, ignore, post_copy=False)


async def test_a_guest_of_before_keeps_its_processor_until_a_hard_reboot(
    hypervisor: LibvirtHypervisor, named: LibvirtHypervisor, tiny: GuestSpec, tiny_image: Path
) -> None:
    await hypervisor.spawn(tiny, tiny_image, ignore)
    await named.stop(tiny.server_id, timedelta(0), ignore)
    await named.start(tiny.server_id)
    assert processor(tiny) == ("custom", "Nehalem")

    await named.reset(tiny.server_id)
    assert processor(tiny) == ("custom", "Westmere")
    await hypervisor.reset(tiny.server_id)
    assert processor(tiny) == ("custom", "Nehalem")


@pytest.mark.parametrize(
    ("model", "reason"),
    [("Cascadelake-Server", "lacks something of"), ("host-passthrough", "knows no processor")],
)
async def test_a_worker_that_cannot_give_the_processor_does_not_start_and_says_which_it_can(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, model: str, reason: str
) -> None:
    async def untouched(network: LocalNetwork) -> None:
        pass

    monkeypatch.setattr(LocalNetwork, "restore", untouched)
    libvirt = LibvirtSettings(virt_type="qemu", cpu_model=model)

    with pytest.raises(InvalidRequest, match=reason) as refusal:
        await make_machines(Settings(state_dir=state_dir, host=HostSettings(libvirt=libvirt)))

    detail = refusal.value.detail
    assert (detail.field, detail.value) == ("host.libvirt.cpu_model", model)
    usable = str(detail.remedy).partition("here: ")[2].split(", ")
    assert "Nehalem" in usable
    assert model not in usable
    [problem] = check_kvm(libvirt, state_dir)
    assert (problem.fatal, problem.remedy) == (True, detail.remedy)
