"""The memory of guests under TCG: QEMU really has it in a size with which it does not lose what they write."""

import json
import subprocess
from typing import Any

import pytest
from lxml import etree

from drivers.hypervisor.libvirt import LibvirtHypervisor
from drivers.hypervisor.libvirt.tcg_memory import BACKEND, MORE_KIB
from tests.drivers.hypervisor.libvirt.guests import MIB, domain_of, guest, ignore, root_disk

FAST_WAY = 64 * 4096
"""Of a multiple of this QEMU reads the bitmap by the way that forgets to watch the pages anew."""


def qemu_says(name: str, command: str) -> Any:
    told = ["virsh", "--connect", "qemu:///system", "qemu-monitor-command", name, json.dumps({"execute": command})]
    return json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout)["return"]


@pytest.mark.real
async def test_qemu_watches_it_by_the_way_that_forgets_nothing(hypervisor: LibvirtHypervisor) -> None:
    spec = guest(root_disk(size_bytes=MIB))
    await hypervisor.spawn(spec, None, ignore)

    domain = domain_of(spec)
    has = qemu_says(domain.name(), "query-memory-size-summary")["base-memory"]
    assert has == spec.ram_mib * MIB + MORE_KIB * 1024
    assert has % FAST_WAY != 0
    used = [backend for backend in qemu_says(domain.name(), "query-memdev") if backend["id"] == BACKEND]
    assert [backend["size"] for backend in used] == [has]
    assert etree.fromstring(domain.XMLDesc()).findtext("memory") == str(spec.ram_mib * 1024)
