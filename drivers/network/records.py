"""The ports that are bound on a host: one JSON file each, which outlives the worker."""

from contextlib import suppress
from pathlib import Path

from drivers import durable
from drivers.strays import strays
from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import PortBinding
from hostler.contract.names import is_uuid


class PortRecords:
    """`<directory>/<port id>.json`, read once and kept in memory. Changes block, and are made by one process only."""

    def __init__(self, directory: Path, *, sync: bool = True) -> None:
        """`sync`: whether they shall survive a power cut, too."""
        self._directory = directory
        self._sync = sync
        files = directory.glob("*.json")
        self._ports = {file.stem: PortBinding.model_validate_json(file.read_text()) for file in files}

    def get(self, port_id: str) -> PortBinding | None:
        """The port, if it is bound."""
        return self._ports.get(port_id)

    def all(self) -> list[PortBinding]:
        """All ports that are bound."""
        return list(self._ports.values())

    def of_network(self, network_id: str) -> list[PortBinding]:
        """The ports of one network, by address."""
        return sorted((p for p in self.all() if p.network_id == network_id), key=lambda port: port.ip)

    def look(self) -> list[PortBinding]:
        """All ports that have a whole record in the directory now."""
        return list(filter(None, map(_read, sorted(self._directory.glob("*.json")))))

    def strays(self) -> list[str]:
        """Files that are no port's whole record."""
        return strays(self._directory, lambda path: is_uuid(path.stem) and _read(path) is not None)

    def save(self, port: PortBinding) -> None:
        """Record the port."""
        file = self._file(port.port_id)
        if self._ports.get(port.port_id) != port:
            self._directory.mkdir(parents=True, exist_ok=True)
            durable.write_text(file, port.model_dump_json(), sync=self._sync)
            self._ports[port.port_id] = port

    def remove(self, port_id: str) -> None:
        """Forget the port."""
        self._file(port_id).unlink(missing_ok=True)
        self._ports.pop(port_id, None)

    def _file(self, port_id: str) -> Path:
        if not is_uuid(port_id):  # it becomes a file name
            raise InvalidRequest("a port ID is a UUID", field="port", value=port_id)
        return self._directory / f"{port_id}.json"


def _read(file: Path) -> PortBinding | None:
    with suppress(FileNotFoundError, ValueError):
        return PortBinding.model_validate_json(file.read_text())
    return None
