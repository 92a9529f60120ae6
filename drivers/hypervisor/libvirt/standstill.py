"""Measures how long a guest stands still while it moves: from libvirt's word that it stopped to its running there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import libvirt

from drivers.hypervisor.libvirt.events import run_event_loop
from hostler.contract.guests import MigrationLimits, MigrationReport


class Standstill:
    """One guest's. Times are this host's only: the clocks of two hosts differ."""

    def __init__(self) -> None:
        self._stopped: float | None = None
        self._runs: float | None = None

    @contextmanager
    def noting(self, uri: str, server_id: str) -> Iterator[libvirt.virDomain]:
        """The guest's domain, on a connection of its own; what happens to it meanwhile is noted."""
        run_event_loop()
        connection = libvirt.open(uri)
        try:
            domain = connection.lookupByUUIDString(server_id)
            lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            callback = connection.domainEventRegisterAny(domain, lifecycle, self._note, None)
            try:
                yield domain
            finally:  # libvirt holds the connection for as long as there is a callback, also after it was closed
                with suppress(libvirt.libvirtError):
                    connection.domainEventDeregisterAny(callback)
        finally:
            with suppress(libvirt.libvirtError):
                connection.close()

    def runs(self) -> None:
        """It was let run there."""
        if self._runs is None:
            self._runs = time.monotonic()

    @property
    def duration(self) -> timedelta | None:
        """How long it took, if all of it was seen."""
        if self._stopped is None or self._runs is None:
            return None
        return timedelta(seconds=self._runs - self._stopped)

    def corrected(self, known: MigrationReport | None, took: timedelta, limits: MigrationLimits) -> MigrationReport:
        """libvirt's report, with what it does not count: from its end on to the moment when the guest was let run."""
        known = known or MigrationReport(duration=took, downtime=timedelta(0))
        downtime = known.downtime if limits.post_copy or self.duration is None else self.duration
        return known.model_copy(update={"duration": max(known.duration, took), "downtime": downtime})

    def _note(self, _connection: Any, _domain: libvirt.virDomain, event: int, _detail: int, _opaque: None) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED and self._stopped is None:
            self._stopped = time.monotonic()
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            self._stopped = None
