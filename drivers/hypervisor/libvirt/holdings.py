"""What this machine has of each server: a domain, files, and disks that were received. All calls block.

On storage that hosts share, each has a directory of its own, and sees no other.
"""

import shutil
from pathlib import Path

from drivers import strays
from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.files import FORMER, GuestFiles, server_of
from hostler.contract.errors import RescheduleError
from hostler.contract.states import PowerState


class Holdings:
    """What is in `guests_dir` and `shared_dir`, and the domains of it. What another host made is only listed."""

    def __init__(self, domains: Domains, guests_dir: Path, host_id: str, shared_dir: Path | None = None) -> None:
        self._domains = domains
        self._guests_dir = guests_dir
        self._shared_dir = shared_dir
        self._host_id = host_id

    def held(self) -> list[HeldGuest]:
        """See `HypervisorDriver.held`. NOSTATE is one that has files and no domain.

        Not those that were set aside: `Formers` tells of them, but for another host's.
        """
        # The files first: a guest's are made before its domain.
        paths = [path for root in self._roots() if root.exists() for path in sorted(root.iterdir())]
        found = {guest.server_id: guest for guest in self._domains.held()}
        for path in paths:  # a server's own directory comes before what is beside it
            server_id = server_of(path)
            if server_id is None or server_id in found or not path.exists():
                continue
            ours = self._host_id if path.parent == self._shared_dir else None
            host_id = GuestFiles(path).host_id() or ours
            if path.suffix != FORMER or not self._is_ours(host_id):
                found[server_id] = HeldGuest(server_id, PowerState.NOSTATE, host_id)
        return [found[server_id] for server_id in sorted(found)]

    def strays(self) -> list[str]:
        """See `HypervisorDriver.strays`."""
        return [
            path for root in self._roots() for path in strays.strays(root, lambda found: server_of(found) is not None)
        ]

    def remove(self, files: GuestFiles) -> None:
        """Remove the guest in its place. Leaves alone what another host made here: this one has no say in it."""
        server_id = files.directory.name
        if not self.is_ours(files) or self._domains.is_foreign(server_id):
            return
        self._domains.remove(server_id)
        if not files.former.directory.exists():
            remove_shared(files.former)  # it was about to be set aside, or to return: the disks are its own
        remove_shared(files)
        remove_directory(files)

    def remove_incoming(self, files: GuestFiles) -> None:
        """Remove what was received for the guest."""
        if self.is_ours(files.incoming):
            remove_directory(files.incoming)

    def is_ours(self, files: GuestFiles) -> bool:
        """Whether this host made these files, or nobody wrote down who did."""
        return self._is_ours(files.host_id())

    def refuse_foreign(self, files: GuestFiles) -> None:
        """Make sure that no other host made these files.

        Raises:
            RescheduleError: one did.
        """
        if not self.is_ours(files):
            raise RescheduleError(
                f"{files.directory} has files of the server's, made by host {files.host_id()}",
                remedy="find out whether they are still needed, and move them away",
            )

    def formers(self) -> list[str]:
        """The servers of which a guest of this host's was set aside."""
        found = sorted(self._guests_dir.glob(f"*{FORMER}"))
        return [server_id for path in found if (server_id := server_of(path)) and self.is_ours(GuestFiles(path))]

    def _roots(self) -> list[Path]:
        return [root for root in (self._guests_dir, self._shared_dir) if root is not None]

    def _is_ours(self, host_id: str | None) -> bool:
        return host_id in (None, self._host_id)


def remove_shared(files: GuestFiles) -> None:
    """Remove the disks that are on shared storage. A host that has taken them over has names of its own for them."""
    if files.shared is not None and files.shared.exists():
        shutil.rmtree(files.shared)


def remove_directory(files: GuestFiles) -> None:
    """Remove all of these files. The record of whose they are goes last, so that what is left is still known."""
    if not files.directory.exists():
        return
    for path in files.directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != files.host:
            path.unlink(missing_ok=True)  # another duty of the worker may have
    shutil.rmtree(files.directory)
