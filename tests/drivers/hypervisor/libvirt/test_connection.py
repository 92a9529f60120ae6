"""The connection to libvirt: it survives libvirtd, and its errors say what to do."""

import libvirt
import pytest

from drivers.hypervisor.libvirt.connection import Connection, libvirt_errors, one_line
from hostler.contract.errors import RescheduleError, Unavailable
from tests.drivers.hypervisor.libvirt.relay import Relay


@pytest.mark.real
def test_is_made_once(relay: Relay) -> None:
    connection = Connection(relay.uri)
    assert connection.get() is connection.get()
    connection.close()


@pytest.mark.real
def test_is_made_anew_when_libvirtd_was_restarted(relay: Relay) -> None:
    connection = Connection(relay.uri)
    before = connection.get()
    relay.stop()
    with pytest.raises(Unavailable, match="libvirt does not answer") as caught:
        connection.get()
    assert "systemctl start" in str(caught.value.remedy)
    relay.start()
    after = connection.get()
    assert after is not before
    assert after.getType() == "QEMU"
    connection.close()


@pytest.mark.real
def test_a_call_cut_off_in_the_middle_may_be_repeated(relay: Relay) -> None:
    current = Connection(relay.uri).get()
    relay.stop()
    with pytest.raises(Unavailable), libvirt_errors(RescheduleError):
        current.listAllDomains()


def test_what_libvirt_refuses_is_told_in_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    current = libvirt.open("test:///default")
    with pytest.raises(RescheduleError, match=r"^libvirt: missing name information$"), libvirt_errors(RescheduleError):
        current.defineXML("<domain/>")
    assert capfd.readouterr().err == ""


def test_of_what_qemu_said_the_warnings_are_left_out() -> None:
    libvirt.virResetLastError()
    said = (
        "2026-01-02T03:04:05.6Z qemu-system-x86_64: cannot allocate memory\nqemu-system-x86_64: warning: no feature\n"
    )
    error = libvirt.libvirtError(f"process exited while connecting to monitor: {said}")
    assert one_line(error) == "process exited while connecting to monitor: cannot allocate memory"
