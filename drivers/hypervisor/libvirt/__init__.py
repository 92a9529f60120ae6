"""Guests under QEMU, by way of libvirt: the real hypervisor.

Source of the choices that guests can see (devices, files, config drive): Nova's libvirt driver and OpenStack's
"Config drives" in the administrator guide, so that images made for other clouds boot here as they are.
"""

from drivers.hypervisor.libvirt.driver import LibvirtHypervisor
from drivers.hypervisor.libvirt.probe import VirtType, probe_virt_type

__all__ = ["LibvirtHypervisor", "VirtType", "probe_virt_type"]
