"""As whom libvirt runs QEMU on this host, and what the kernel lets that user do. All calls block."""

from pathlib import Path

from lxml import etree

from drivers.hypervisor.libvirt.connection import Connection, libvirt_errors
from hostler.contract.errors import RescheduleError, Unavailable

USERFAULTFD = "vm.unprivileged_userfaultfd"
SYSCTL = Path("/proc/sys") / USERFAULTFD.replace(".", "/")


def qemu_user(connection: Connection) -> tuple[int, int] | None:
    """Its user and group; None where that is libvirt's own user."""
    with libvirt_errors(Unavailable):
        capabilities = etree.fromstring(connection.get().getCapabilities())
    label = capabilities.findtext("host/secmodel[model='dac']/baselabel[@type='qemu']")
    if label is None:
        return None
    user, _, group = label.strip().partition(":")
    return int(user), int(group)


def refuse_no_post_copy(connection: Connection, sysctl: Path = SYSCTL) -> None:
    """See that a guest can run here before all of its memory has come: QEMU fetches it by userfaultfd(2).

    Raises:
        RescheduleError: the kernel keeps that from all but root.
    """
    owner = qemu_user(connection)
    if owner is None or owner[0] == 0 or not sysctl.exists() or sysctl.read_text().strip() != "0":
        return
    raise RescheduleError(
        f"post-copy is wanted, and the kernel here keeps it from QEMU: {USERFAULTFD} is 0",
        field="live_migration.post_copy",
        value=True,
        remedy=f"on that host: sysctl -w {USERFAULTFD}=1, and in /etc/sysctl.d; or unset live_migration.post_copy",
    )
