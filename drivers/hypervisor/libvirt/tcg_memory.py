"""The memory of a guest that runs under TCG: of a size with which QEMU notices all that is written while it migrates.

Until QEMU 9.0, TCG forgets to watch pages anew once it has read its bitmap of those that were written. It does so only
by the fast way through the bitmap, which it takes when the memory is a multiple of 64 pages. What is written to such
pages is then not sent, and the guest goes on with pages of before: it panics, or worse. Source: QEMU's commit "physmem:
Fix migration dirty bitmap coherency with TCG memory access", March 2024.

libvirt rounds all sizes to MiB, so QEMU is told beside it: the memory that libvirt made is left unused.
"""

from lxml import etree
from lxml.builder import ElementMaker

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
MORE_KIB = 8
"""QEMU rounds to this: two pages."""
BACKEND = "hostler.ram"
COMMAND_LINE = ElementMaker(namespace=QEMU, nsmap={"qemu": QEMU})


def tcg_memory(ram_mib: int) -> etree._Element:
    """What a domain under TCG has beside its <memory>: QEMU's last word counts."""
    kib = 1024 * ram_mib + MORE_KIB
    arguments = (
        *("-object", f"memory-backend-ram,id={BACKEND},size={kib}k"),
        *("-machine", f"memory-backend={BACKEND}"),
        *("-m", f"size={kib}k"),
    )
    return COMMAND_LINE.commandline(*(COMMAND_LINE.arg(value=argument) for argument in arguments))
