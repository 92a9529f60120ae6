"""The connection to libvirt: it survives libvirtd, and its errors say what to do."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import libvirt
import pytest

from drivers.hypervisor.libvirt.connection import Connection, libvirt_errors, one_line
from hostler.contract.errors import RescheduleError, Unavailable

SOCKET = "/run/libvirt/libvirt-sock"


class Relay:
    """Stands between a client and this machine's libvirtd, so that a test can end libvirtd for one client."""

    def __init__(self, path: Path) -> None:
        self.uri = f"qemu+unix:///system?socket={path}"
        self._path = path
        self._ends: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        ends = [*self._ends, self._listener] if self._listener else self._ends
        self._path.unlink(missing_ok=True)
        self._ends = []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(SOCKET)
                self._ends += [client, daemon]
                for source, sink in ((client, daemon), (daemon, client)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path / "sock")
    relay.start()
    yield relay
    relay.stop()


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
