"""What a lab is called and where it is: the names, addresses and files that its parts agree on."""

import ipaddress
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from drivers.directories import first_closed, make_traversable

NAME, SUBNET, HOSTS = "hostler-lab", "198.18.72.0/24", 3
DIRECTORY = Path("/var/lib") / NAME
FILE = "lab.json"
MOST_HOSTS = 9
LONGEST_NAME = 13
"""Linux limits interface names to 15 characters, of which `-1` is the host's."""
TEMPORAL_PORT, UI_PORT = 7233, 8233


class Refused(Exception):
    """The lab cannot do that; `remedy` says what to do instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Site:
    """One lab. `name` is also that of the bridge which is its network; `shared`: hosts share the guests' disks."""

    directory: Path = DIRECTORY
    name: str = NAME
    subnet: IPv4Network = IPv4Network(SUBNET)  # noqa: RUF009 - it is immutable
    hosts: int = HOSTS
    shared: bool = False

    @classmethod
    def choose(
        cls, directory: Path, name: str | None, subnet: str | None, hosts: int | None, shared: bool = False
    ) -> "Site":
        """The lab that is in `directory`, or a new one. None, or not `shared`, is what it has, or the default.

        Raises:
            Refused: the lab that is there is another one, or there can be none like that.
        """
        directory = directory.absolute()
        known = cls.load(directory) if (directory / FILE).exists() else cls(directory)
        try:
            chosen = cls(
                directory,
                name or known.name,
                known.subnet if subnet is None else ipaddress.IPv4Network(subnet),
                hosts or known.hosts,
                shared or known.shared,
            )
        except ValueError as error:
            raise Refused(f"{subnet} is no IPv4 subnet: {error}", f"write it like {SUBNET}") from None
        if (directory / FILE).exists() and chosen != known:
            raise Refused(
                f"the lab in {directory} is another one: {known.name} with {known.hosts} hosts in {known.subnet}, "
                f"whose disks are {'shared' if known.shared else 'not shared'}",
                "end that one first (down), or give this one a --directory of its own",
            )
        chosen._check()
        return chosen

    @classmethod
    def load(cls, directory: Path) -> "Site":
        """The lab that is in `directory`.

        Raises:
            Refused: there is none.
        """
        directory = directory.absolute()
        try:
            kept = json.loads((directory / FILE).read_text())
        except FileNotFoundError:
            raise Refused(f"there is no lab in {directory}", "bring one up: make lab") from None
        subnet, shared = IPv4Network(kept["subnet"]), kept.get("shared", False)
        return cls(directory, kept["name"], subnet, kept["hosts"], shared)

    def save(self) -> None:
        """Make the directory, and remember which lab it is.

        Raises:
            Refused: the directory is somebody else's, or closed to QEMU.
        """
        if self.directory.exists() and not (self.directory / FILE).exists() and any(self.directory.iterdir()):
            raise Refused(
                f"{self.directory} is no lab's, and not empty", "name another --directory, or one that is not there"
            )
        make_traversable(self.directory)
        if closed := first_closed(self.directory):
            raise Refused(
                f"QEMU and dnsmasq, which are users of their own, cannot get through {closed}", "name another directory"
            )
        (self.directory / FILE).write_text(
            json.dumps({"name": self.name, "subnet": str(self.subnet), "hosts": self.hosts, "shared": self.shared})
            + "\n"
        )

    @cached_property
    def address(self) -> IPv4Address:
        """The machine's own, at which the control plane is."""
        return self.subnet[-2]

    @property
    def temporal(self) -> str:
        """Where the hosts find Temporal."""
        return f"{self.address}:{TEMPORAL_PORT}"

    @property
    def ui(self) -> str:
        """Temporal's web UI."""
        return f"http://{self.address}:{UI_PORT}"

    @property
    def config(self) -> Path:
        """The settings of the control plane, and of whoever uses the lab's cloud."""
        return self.directory / "hostler.toml"

    @property
    def control(self) -> Path:
        """The control plane's state directory."""
        return self.directory / "control"

    @property
    def images(self) -> Path:
        """The image store, which all hosts share."""
        return self.directory / "images"

    @property
    def shared_disks(self) -> Path:
        """Where guests' disks are, if hosts share them."""
        return self.directory / "shared"

    @property
    def state(self) -> Path:
        """Where each host finds its own state directory: the same path on all, as on real ones."""
        return self.directory / "state"

    def remove(self) -> None:
        """Remove the directory; last what says that it is a lab's, lest half of it be nobody's."""
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != FILE:
                path.unlink()
        (self.directory / FILE).unlink()
        self.directory.rmdir()

    def _check(self) -> None:
        if not 1 <= self.hosts <= MOST_HOSTS:
            raise Refused(f"a lab of {self.hosts} hosts", f"have 1 to {MOST_HOSTS}")
        if not self.name or len(self.name) > LONGEST_NAME or not self.name.replace("-", "").isalnum():
            raise Refused(f"{self.name!r} cannot be a bridge's name", f"use up to {LONGEST_NAME} letters and digits")
        if self.subnet.num_addresses < self.hosts + 3:
            raise Refused(f"{self.subnet} has too few addresses for {self.hosts} hosts", "use a /24, say")
