"""A libvirtd that can be lost: a relay between a client and this machine's."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

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
