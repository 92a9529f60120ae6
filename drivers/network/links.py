"""A mirror of this host's network interfaces, kept by the kernel's notifications."""

import errno
import socket
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_LINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

IFF_UP = 1
RECEIVE_BUFFER_BYTES = 1 << 20
MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Link:
    """An interface. `master` is the index of its bridge."""

    index: int
    name: str
    up: bool
    master: int | None


class Links:
    """The interfaces by index. The socket becomes readable when they have changed; then call `update`."""

    def __init__(self) -> None:
        """Subscribe, then read all: what changes in between arrives as a notification."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._socket.bind((0, RTMGRP_LINK))
        self._marshal = MarshalRtnl()
        self._links: dict[int, Link] = {}
        self._by_name: dict[str, Link] = {}
        self._read_all()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def update(self) -> None:
        """Take in what has changed. Where notifications were lost, read all again."""
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._read_all()
                continue
            for message in self._marshal.parse(data):
                self._apply(message)
        self._by_name = {link.name: link for link in self._links.values()}

    def plugged(self, tap: str, bridge: str) -> Link | None:
        """The interface `tap`, if it is up and in `bridge`."""
        link = self._by_name.get(tap)
        if link is None or not link.up or link.master is None:
            return None
        master = self._links.get(link.master)
        return link if master and master.name == bridge else None

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def _read_all(self) -> None:
        self._links.clear()
        with IPRoute() as netlink:
            for message in netlink.get_links():
                self._apply(message)
        self._by_name = {link.name: link for link in self._links.values()}

    def _apply(self, message: Any) -> None:
        if message["family"] != socket.AF_UNSPEC:
            return  # a bridge speaks of its port, and says "deleted" when the port leaves it
        index = message["index"]
        if message["event"] == "RTM_DELLINK":
            self._links.pop(index, None)
        elif message["event"] == "RTM_NEWLINK":
            up = bool(message["flags"] & IFF_UP)
            self._links[index] = Link(index, message.get_attr("IFLA_IFNAME"), up, message.get_attr("IFLA_MASTER"))
