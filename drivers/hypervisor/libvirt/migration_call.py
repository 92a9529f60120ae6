"""The call by which libvirt moves a guest, on the host that it leaves: its flags, its parameters, its end. All block.

libvirt lets a guest run on again at its source when it loses the other host's answer at the very end, although it may
run there by then. So the guest arrives paused (VIR_MIGRATE_PAUSED), and is let run there only when libvirt here has
said that its QEMU is gone.

With post-copy libvirt does not allow that. There, the switch is the hand-over: from it on the guest cannot run here
again, whatever happens, and is lost if the network is. A migration that ends before it was switched is handed over as
libvirt does it: if the network is cut within that moment, the guest may run twice.
"""

import threading
from collections.abc import Callable
from contextlib import nullcontext

import libvirt

from drivers.hypervisor.libvirt import migration_job
from drivers.hypervisor.libvirt.connection import ignoring, libvirt_errors
from drivers.hypervisor.libvirt.departure import watching
from drivers.hypervisor.libvirt.domains import GONE, forget_kept
from drivers.hypervisor.libvirt.migration_job import Place
from drivers.hypervisor.libvirt.peers import Peer, in_uri, migration_uri
from drivers.hypervisor.libvirt.snapshots import abort_backup
from drivers.hypervisor.libvirt.standstill import Standstill
from hostler.contract.errors import Unavailable
from hostler.contract.guests import Incoming, MigrationLimits

FIRST_DOWNTIME, DOWNTIME_STEP = 0.6, 0.1
"""Of what is allowed at most: in the first pass over a guest's memory, and more in each that follows."""


def make_ready(domain: libvirt.virDomain, limits: MigrationLimits) -> None:
    """Before the first call."""
    abort_backup(domain)  # what a worker that died may have left running
    migration_job.forget_completed(domain)
    forget_kept(domain)
    allow_downtime(domain, limits, passes=0)


def allow_downtime(domain: libvirt.virDomain, limits: MigrationLimits, *, passes: int) -> None:
    """Let the guest stand still for longer with each time that its memory has been gone through.

    QEMU ends a migration as soon as it is allowed to: a guest that writes little must not stand still for as long as
    one that writes much. Nova takes such steps too, by the clock.
    """
    share = min(FIRST_DOWNTIME + DOWNTIME_STEP * max(passes - 1, 0), 1)
    with libvirt_errors(Unavailable), ignoring(*GONE):
        domain.migrateSetMaxDowntime(max(1, int(1000 * share * limits.downtime.total_seconds())))


def migrate(
    uri: str, incoming: Incoming, limits: MigrationLimits, peer: Peer, still: Standstill, gone: Callable[[], object]
) -> None:
    """Blocks until the end, on a connection of its own: libvirtd serves few calls of one at a time.

    `gone` is called, on another thread, when the guest runs there, if that is known before the end. With post-copy
    nobody waits for that: libvirt itself lets the guest run there.
    """
    told = threading.Event()

    def let_run() -> None:  # at once: the guest stands still
        peer.let_run(incoming.server_id)
        still.runs()

    def left() -> None:
        let_run()
        told.set()
        gone()

    with still.noting(uri, incoming.server_id) as domain:
        with nullcontext() if limits.post_copy else watching(domain.name(), left):
            domain.migrateToURI3(migration_uri(incoming.address), parameters(incoming, limits), flags(incoming, limits))
        if not told.is_set() and migration_job.place(domain) is Place.AWAY:
            let_run()


def parameters(incoming: Incoming, limits: MigrationLimits) -> dict[str, str | int | list[str]]:
    """The parameters of the migration."""
    found: dict[str, str | int | list[str]] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{in_uri(incoming.address)}",
        libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: incoming.address,
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: incoming.live,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: incoming.persistent,
    }
    if incoming.disks:
        found[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = incoming.disks
    if limits.bandwidth_mib:
        found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = limits.bandwidth_mib
    return found


def flags(incoming: Incoming, limits: MigrationLimits) -> int:
    """The flags of the migration. Not UNDEFINE_SOURCE: what is left here is removed when all is well there."""
    found = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_TLS
    found |= libvirt.VIR_MIGRATE_PERSIST_DEST
    found |= libvirt.VIR_MIGRATE_POSTCOPY if limits.post_copy else libvirt.VIR_MIGRATE_PAUSED
    if incoming.disks:
        found |= libvirt.VIR_MIGRATE_NON_SHARED_DISK if incoming.whole else libvirt.VIR_MIGRATE_NON_SHARED_INC
    if incoming.shared:
        # libvirt takes only some file systems for shared. What it would look at has been: the other host has seen these
        # very disks, which no host keeps in its page cache; see `arriving`.
        found |= libvirt.VIR_MIGRATE_UNSAFE
    if limits.auto_converge:
        found |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    return int(found)
