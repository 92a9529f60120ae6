"""Libvirt domains, as far as servers need them. Every call blocks and may be repeated.

A domain is defined only once the guest's files are whole: one that is there says so.
"""

from pathlib import Path

import libvirt
from lxml import etree

from drivers.hypervisor.base import HeldGuest
from drivers.hypervisor.libvirt.connection import Connection, ignoring, libvirt_errors
from drivers.hypervisor.libvirt.domain_xml import GONE as HANDED_OVER
from drivers.hypervisor.libvirt.domain_xml import KEPT, NAMESPACE, Mark, domain_name
from drivers.hypervisor.libvirt.files import GuestFiles
from hostler.contract.errors import NotFound, RescheduleError, Unavailable
from hostler.contract.states import PowerState

# As Nova's LIBVIRT_POWER_STATE, in nova/virt/libvirt/guest.py, but that a guest in the middle of its shutdown is not
# off yet. One that put itself to sleep does not run, as a paused one.
POWER_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: PowerState.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
}
GONE = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)  # off, or off and forgotten, meanwhile
ALL_STATE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class Domains:
    """The domains whose files are in `guests_dir`. Others, another Hostler's too, are not seen and not touched.

    A domain that another host made there, as this machine was before its host's UUID was lost, is only listed.
    """

    def __init__(self, connection: Connection, guests_dir: Path, host_id: str) -> None:
        self._connection = connection
        self._guests_dir = guests_dir
        self._host_id = host_id

    def held(self) -> list[HeldGuest]:
        """The guests that have a domain here."""
        prefix = domain_name("")
        held = []
        with libvirt_errors(Unavailable):
            for domain in self._connection.get().listAllDomains():
                # One may go meanwhile, and it is none then.
                with ignoring(libvirt.VIR_ERR_NO_DOMAIN):
                    mark = self._mark(domain) if domain.name().startswith(prefix) else None
                    if mark is not None:
                        held.append(HeldGuest(domain.UUIDString(), _state(domain), mark.host or None))
        return held

    def mark(self, server_id: str) -> Mark | None:
        """The mark of the server's domain; None without one.

        Raises:
            RescheduleError: the UUID is taken by a domain that is not ours.
        """
        with libvirt_errors(Unavailable):
            domain = self._look_up(server_id)
            if domain is None:
                return None
            mark = self._mark(domain)
            if mark is None or not self._is_ours(mark):
                whose = f"of host {mark.host}" if mark else "not of this host worker"
                raise RescheduleError(
                    f"libvirt has a domain {domain.name()} with the server's UUID, which is {whose}",
                    remedy=f"find out whose it is: virsh dumpxml {server_id}",
                )
            return mark

    def is_foreign(self, server_id: str) -> bool:
        """Whether the server's domain was made by another host, so that its files are not ours either."""
        with libvirt_errors(Unavailable):
            domain = self._look_up(server_id)
            mark = None if domain is None else self._mark(domain)
            return mark is not None and not self._is_ours(mark)

    def exists(self, server_id: str) -> bool:
        """Whether libvirt knows the guest."""
        with libvirt_errors(Unavailable):
            return self._find(server_id) is not None

    def get(self, server_id: str) -> libvirt.virDomain:
        """The guest's domain, for what is not asked of it here.

        Raises:
            NotFound: no such guest here.
        """
        with libvirt_errors(Unavailable):
            return self._get(server_id)

    def definition(self, server_id: str) -> str:
        """The XML of which the same domain can be defined again.

        Raises:
            NotFound: no such guest here.
        """
        with libvirt_errors(Unavailable):
            xml: str = self._get(server_id).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
            return xml

    def define(self, xml: str) -> None:
        """Make the domain known to libvirt.

        Raises:
            RescheduleError: this libvirt or QEMU does not do what the XML asks for.
        """
        with libvirt_errors(RescheduleError):
            self._connection.get().defineXML(xml)

    def power_on(self, server_id: str, paused: bool = False) -> None:
        """Start the guest unless it runs: a paused one runs on, or stays as it is if `paused` is what is wanted.

        Raises:
            RescheduleError: QEMU does not start: memory, disk or bridge missing. Or the guest is another host's now.
            NotFound: no such guest here.
        """
        with libvirt_errors(RescheduleError):
            domain = self._get(server_id)
            self._refuse_handed_over(domain)
            match _state(domain), paused:
                case (PowerState.RUNNING, _) | (PowerState.PAUSED, True):
                    return
                case PowerState.PAUSED, False:
                    domain.resume()
                case _:
                    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)

    def resume(self, server_id: str) -> None:
        """Let a paused guest run.

        Raises:
            RescheduleError: the guest is off: its QEMU died here.
            NotFound: no such guest here.
        """
        with libvirt_errors(RescheduleError):
            domain = self._get(server_id)
            if _state(domain) is not PowerState.RUNNING:
                domain.resume()

    def note_handed_over(self, server_id: str) -> None:
        """Note in the domain, which is off, that another host has the guest: nothing starts it here any more."""
        self._note(server_id, HANDED_OVER)

    def _note(self, server_id: str, spec: str) -> None:
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            if domain is not None and not domain.isActive():
                _write(domain, spec, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def keep(self, server_id: str) -> None:
        """Note in the domain that the guest is this host's after all; see `forget_kept`."""
        if self.is_handed_over(server_id):
            self._note(server_id, KEPT)

    def is_handed_over(self, server_id: str) -> bool:
        """Whether another host has the guest, by this host's record or libvirt's."""
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            return domain is not None and self._has_left(domain)

    def press_power_button(self, server_id: str) -> None:
        """Ask the guest to shut down; it may be off already.

        Through ACPI only: libvirt would wait a minute for the answer of a guest agent that hangs.
        """
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            if domain is not None:
                with ignoring(*GONE):
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def power_off(self, server_id: str) -> None:
        """Pull the plug, if there is a guest."""
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            if domain is not None:
                with ignoring(*GONE):
                    domain.destroy()

    def is_off(self, server_id: str) -> bool:
        """Whether no QEMU runs for the guest.

        Raises:
            NotFound: no such guest here.
        """
        with libvirt_errors(Unavailable):
            return not self._get(server_id).isActive()

    def remove(self, server_id: str) -> None:
        """Stop the guest at once and make libvirt forget it, if there is one."""
        self.power_off(server_id)
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            if domain is not None:
                domain.undefineFlags(ALL_STATE)

    def power_state(self, server_id: str) -> PowerState:
        """The guest's power state; NOSTATE without a guest."""
        with libvirt_errors(Unavailable):
            domain = self._find(server_id)
            if domain is not None:
                with ignoring(libvirt.VIR_ERR_NO_DOMAIN):  # it went between the two looks
                    return _state(domain)
        return PowerState.NOSTATE

    def _refuse_handed_over(self, domain: libvirt.virDomain) -> None:
        if self._has_left(domain):
            raise RescheduleError(
                "the guest was handed over to another host: what is left of it here must not be started",
                field="server_id",
                value=domain.UUIDString(),
                remedy="find out where the server is and whether its guest is there: hostler server show. If it is "
                "nowhere else: hostler server revert",
            )

    def _has_left(self, domain: libvirt.virDomain) -> bool:
        """libvirt forgets it when it is restarted, the mark stays; an operation may know better than both."""
        mark = self._mark(domain)
        if domain.isActive() or (mark is not None and mark.spec == KEPT):
            return False
        away: bool = domain.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
        return away or (mark is not None and mark.spec == HANDED_OVER)

    def _get(self, server_id: str) -> libvirt.virDomain:
        domain = self._find(server_id)
        if domain is None:
            raise NotFound("the server has no guest on this host", field="server_id", value=server_id)
        return domain

    def _find(self, server_id: str) -> libvirt.virDomain | None:
        domain = self._look_up(server_id)
        mark = None if domain is None else self._mark(domain)
        return domain if mark is not None and self._is_ours(mark) else None

    def _look_up(self, server_id: str) -> libvirt.virDomain | None:
        domain = None
        with ignoring(libvirt.VIR_ERR_NO_DOMAIN):
            domain = self._connection.get().lookupByUUIDString(server_id)
        return domain

    def _mark(self, domain: libvirt.virDomain) -> Mark | None:
        metadata = None
        with ignoring(libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
            metadata = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        if metadata is None:
            return None
        mark = Mark.read(metadata)
        files = GuestFiles.of(self._guests_dir, domain.UUIDString())
        return mark if mark.directory == str(files.directory) else None

    def _is_ours(self, mark: Mark) -> bool:
        return mark.host in ("", self._host_id)


def forget_kept(domain: libvirt.virDomain) -> None:
    """Drop the note that the guest is this host's after all, before it leaves again: it would hide that it has left.

    Not when it is started, for then it may be so by others, or this worker die in between.
    """
    away = (*GONE, libvirt.VIR_ERR_NO_DOMAIN_METADATA)
    with libvirt_errors(Unavailable), ignoring(*away):
        kind, config = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        if Mark.read(domain.metadata(kind, NAMESPACE, config)).spec == KEPT:
            _write(domain, "", config | libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _write(domain: libvirt.virDomain, spec: str, where: int) -> None:
    """Have the domain's mark say this for its spec."""
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    element = etree.fromstring(domain.metadata(kind, NAMESPACE))
    element.set("spec", spec)
    domain.setMetadata(kind, etree.tostring(element, encoding="unicode"), "hostler", NAMESPACE, where)


def _state(domain: libvirt.virDomain) -> PowerState:
    state, _reason = domain.state()
    return POWER_STATES[state]
