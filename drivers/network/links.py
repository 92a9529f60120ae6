"""A mirror of this host's network interfaces, kept by the kernel's notifications."""

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress
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


class Lost(Exception):
    """The kernel dropped notifications: the mirror is of no use any more, and a new one is needed."""


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
        self._lost = False
        with IPRoute() as netlink:
            self._apply(netlink.get_links())

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def update(self) -> None:
        """Take in what has changed."""
        with suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(MESSAGE_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._lost = True
                    continue
                self._apply(self._marshal.parse(data))

    def plugged(self, tap: str, bridge: str) -> Link | None:
        """The interface `tap`, if it is up and in `bridge`.

        Raises:
            Lost: nobody knows.
        """
        if self._lost:
            raise Lost
        link = self._by_name.get(tap)
        if link is None or not link.up or link.master is None:
            return None
        master = self._links.get(link.master)
        return link if master and master.name == bridge else None

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def _apply(self, messages: Iterable[Any]) -> None:
        for message in messages:
            if message["family"] != socket.AF_UNSPEC:
                continue  # a bridge speaks of its port, and says "deleted" when the port leaves it
            index = message["index"]
            if message["event"] == "RTM_DELLINK":
                self._links.pop(index, None)
            elif message["event"] == "RTM_NEWLINK":
                name, master = message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MASTER")
                self._links[index] = Link(index, name, bool(message["flags"] & IFF_UP), master)
        self._by_name = {link.name: link for link in self._links.values()}
