"""What Hostler asks of a hypervisor.

Every method may be called twice with the same arguments and then changes nothing the second time; `destroy` also
works when `spawn` stopped half-way or never ran. A reason that another host may not share is raised as
`RescheduleError`, what can never succeed as another `HostlerError`; any other exception is worth a retry.
"""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from hostler.contract.guests import GuestSpec
from hostler.contract.resources import Inventory
from hostler.contract.states import PowerState

Report = Callable[[str], None]
"""Says how far a long step has come; becomes the activity's heartbeat."""


class HeldGuest(NamedTuple):
    """A guest as it is found on the machine. `host_id` is the host that spawned it, by its own record, if that says."""

    server_id: str
    power_state: PowerState
    host_id: str | None


class HypervisorDriver(Protocol):
    """One host's hypervisor. A guest whose record names another host is seen by `held` alone, and never touched."""

    async def inventory(self) -> Inventory:
        """What this host has, before anything is subtracted."""

    async def free_ram_mib(self) -> int:
        """Memory that the machine could really give to a new guest now."""

    async def free_disk_gib(self) -> int:
        """Space that the guests' file system really has now."""

    async def spawn(self, guest: GuestSpec, base: Path | None, report: Report) -> None:
        """Make the guest's disks (the root one over the image file `base`), define its domain and start it paused.

        Raises:
            RescheduleError: this host cannot run the guest.
        """

    async def resume(self, server_id: str) -> None:
        """Let a paused guest run."""

    async def destroy(self, server_id: str) -> None:
        """Stop the guest at once and remove its domain and all of its files."""

    async def start(self, server_id: str) -> None:
        """Power a stopped guest on."""

    async def stop(self, server_id: str, timeout: timedelta, report: Report) -> bool:
        """Power the guest off; True when it obeyed, False when it had to be forced after `timeout` (0: at once)."""

    async def reset(self, server_id: str) -> None:
        """Reset the guest's machine (hard reboot); starts it when it is off."""

    async def power_state(self, server_id: str) -> PowerState:
        """The guest's power state; NOSTATE when the host does not know it."""

    async def console_log(self, server_id: str, max_bytes: int) -> str:
        """The end of what the guest wrote to its serial console."""

    async def guests(self) -> list[str]:
        """The UUIDs of all servers that have a guest here."""

    async def held(self) -> list[HeldGuest]:
        """Every guest that is found here, whichever host spawned it, also what is left of one."""

    async def strays(self) -> list[str]:
        """Files among the guests' that belong to no guest."""

    def power_changes(self) -> AsyncIterator[frozenset[str]]:
        """The guests whose power state may be news: all at first, then each that changed, but not by a call of ours.

        Whoever asked for a change knows of it. All come again whenever some may have been missed.
        """

    async def close(self) -> None:
        """Let go of connections and threads; guests stay."""
