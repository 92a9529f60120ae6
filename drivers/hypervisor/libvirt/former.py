"""Sets a guest aside, so that the next one of its server can be made in its place, and brings it back.

Its directory gets another name, as Nova's `_resize`, and keeps the domain's XML. All calls block, and each goes on
where one that was killed ended. Disks on shared storage have a directory of their own: it is the first to be set aside
and the last to come back, so that one without the other is always the disks of the guest in its place.
"""

from pathlib import Path

from drivers.durable import put_in_place
from drivers.hypervisor.libvirt.domain_xml import without_backing_file
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.files import ROOT_DISK, GuestFiles
from drivers.hypervisor.libvirt.holdings import Holdings, remove_directory, remove_shared
from hostler.contract.errors import Conflict, NotFound, OperationFailed
from hostler.private_files import write_private


class Formers:
    """The guests of this host that were set aside."""

    def __init__(self, domains: Domains, holdings: Holdings) -> None:
        self._domains = domains
        self._holdings = holdings

    def exists(self, files: GuestFiles) -> bool:
        """Whether a guest of the server was set aside."""
        return files.former.directory.exists() and self._holdings.is_ours(files.former)

    def can_return(self, files: GuestFiles) -> bool:
        """Whether one was, and all of it is still there."""
        return self.exists(files) and files.former.domain_xml.exists()

    def set_aside(self, files: GuestFiles) -> None:
        """See `HypervisorDriver.set_aside`.

        Raises:
            Conflict: one was, and there is another guest in its place.
        """
        server_id = files.directory.name
        has_domain = self._domains.exists(server_id)
        self._holdings.refuse_foreign(files.former)
        if self.exists(files):
            if has_domain or files.directory.exists():
                raise Conflict(
                    f"a guest of server {server_id} was set aside already, and another is in its place",
                    field="server_id",
                    value=server_id,
                    remedy="bring the first one back, or drop it",
                )
            return
        if not self._holdings.is_ours(files) or not files.directory.exists():
            raise _not_here(server_id)
        if has_domain:
            _keep(self._domains.definition(server_id), files.domain_xml)
            self._domains.remove(server_id)
        elif not files.domain_xml.exists():
            raise _not_here(server_id)  # half made: nothing that could be brought back
        _rename_shared(files, files.former)
        put_in_place(files.directory, files.former.directory)

    def bring_back(self, files: GuestFiles) -> bool:
        """See `HypervisorDriver.bring_back`; whether there was something to do.

        Raises:
            RescheduleError: what is in its place is another host's.
            OperationFailed: some of it was removed already.
        """
        server_id = files.directory.name
        if self.exists(files) and not files.former.domain_xml.exists():
            raise OperationFailed(
                f"the former guest of server {server_id} has been removed in part: it cannot be brought back",
                remedy="what is in its place is left alone; see deploy/runbooks/leaked-thing.md",
            )
        if self.exists(files):
            self._holdings.refuse_foreign(files)
            self._domains.mark(server_id)  # refuses a domain that is not ours
            self._holdings.remove(files)
            self._holdings.remove_incoming(files)
            put_in_place(files.former.directory, files.directory)
        if not files.domain_xml.exists() or not self._holdings.is_ours(files):
            return False
        if not self.exists(files):
            _rename_shared(files.former, files)
        defined = not self._domains.exists(server_id)
        if defined:
            self._domains.define(files.domain_xml.read_text())
        files.domain_xml.unlink()
        return defined

    def stands_alone(self, files: GuestFiles) -> None:
        """Note that the root disk of the guest that was set aside has taken in what it had of its image."""
        xml = files.former.domain_xml
        in_place = files.former.disk_directory.with_name(files.directory.name)
        _keep(without_backing_file(xml.read_text(), in_place / ROOT_DISK), xml)

    def drop(self, files: GuestFiles) -> None:
        """See `HypervisorDriver.drop_former`."""
        if self.exists(files):
            files.former.domain_xml.unlink(missing_ok=True)  # from here on it cannot be brought back
            remove_shared(files.former)
            remove_directory(files.former)


def _rename_shared(files: GuestFiles, to: GuestFiles) -> None:
    if files.shared is not None and to.shared is not None and files.shared.exists():
        put_in_place(files.shared, to.shared)


def _keep(xml: str, path: Path) -> None:
    """Write it so that neither others nor a power cut get at it."""
    part = path.with_name(f".{path.name}.new")
    write_private(part, xml)
    put_in_place(part, path)


def _not_here(server_id: str) -> NotFound:
    return NotFound("the server has no guest on this host", field="server_id", value=server_id)
