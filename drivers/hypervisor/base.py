"""What Hostler asks of a hypervisor.

Every method may be called twice with the same arguments and then changes nothing the second time; `destroy` also
works when `spawn` stopped half-way or never ran. A reason that another host may not share is raised as
`RescheduleError`, what can never succeed as another `HostlerError`; any other exception is worth a retry.
"""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from hostler.contract.guests import (
    Arrival,
    DisksOffer,
    GuestDescription,
    GuestSpec,
    Incoming,
    MigrationLimits,
    MigrationReport,
    Whereabouts,
)
from hostler.contract.resources import DiskFormat, Inventory
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

        Disks that were received, or that are to be preserved, are taken as they are, and grown where the guest's are
        larger. They stay where they were as well until the guest is defined: what stops half-way can be done again.
        So are those that hosts share of one that is taken over from another host, which keeps its names for them.

        Raises:
            RescheduleError: this host cannot run the guest, or does not see such disks.
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

    async def set_aside(self, server_id: str) -> None:
        """Keep the guest where nothing starts it: off, without a domain, its files under another name.

        So the next guest of the server can be made, on this host too, while this one can be brought back.

        Raises:
            NotFound: there is no guest, neither in its place nor aside.
            Conflict: one was set aside, and another is in its place.
        """

    async def bring_back(self, server_id: str) -> None:
        """Put the guest that was set aside in its place again, off; another guest of the server that is there goes.

        Nothing happens when none was set aside. What is offered of it is withdrawn.

        Raises:
            RescheduleError: what is in its place was made by another host.
        """

    async def drop_former(self, server_id: str) -> None:
        """Remove the guest that was set aside, if there is one. What is offered of it is withdrawn."""

    async def has_former(self, server_id: str) -> bool:
        """Whether a guest of the server was set aside that can be brought back."""

    async def formers(self) -> list[str]:
        """The servers whose guest was set aside here, or of which something is offered."""

    async def snapshot(self, server_id: str, target: Path, quiesce: bool, report: Report) -> DiskFormat:
        """Write all of the guest's root disk, as it is at one moment, into the new file `target`; the file's format.

        A guest that runs goes on. Its file systems are frozen for the moment where its agent does that; `quiesce`:
        it must. A file that is there already is written anew.

        Raises:
            NotFound: there is no guest.
            InvalidState: `quiesce`, and no agent that answers, or it has nothing to freeze.
            RescheduleError: there is no room.
        """

    async def restore(self) -> dict[str, str]:
        """Put right what was left half done in guests that run; asked again and again. Which still hang, and why."""

    async def check_leaving(self, server_id: str) -> None:
        """See that another host could fetch the disks of the guest, once it is off and was set aside.

        Raises:
            RescheduleError: none could.
        """

    async def offer_disks(self, server_id: str, flatten: bool, report: Report) -> DisksOffer:
        """Serve the local disks, but for swap, of the guest that was set aside; the same answer while they are served.

        A server of them that has died is started again, at its place. `flatten`: the root disk takes in what it has of
        its image first, and stands alone from then on.

        Raises:
            NotFound: none was set aside.
            RescheduleError: they cannot be served.
        """

    async def withdraw_offer(self, server_id: str) -> None:
        """Serve them no longer, and forget the key."""

    async def receive_disks(self, offer: DisksOffer, report: Report) -> None:
        """Fetch the disks into this host, where `spawn` finds them; what had arrived before is not fetched again.

        Each is compared with its checksum. `destroy` removes them.

        Raises:
            Unavailable: their host no longer serves them.
            RescheduleError: there is no room here, or what arrived is not what was sent.
        """

    async def describe(self, server_id: str) -> GuestDescription:
        """The guest as another host must know it to take it in while it runs.

        Raises:
            NotFound: there is no guest.
            InvalidState: it is off, or has something that cannot move while it runs.
        """

    async def prepare_incoming(
        self, guest: GuestSpec, description: GuestDescription, base: Path | None, report: Report, *, post_copy: bool
    ) -> Incoming:
        """Make ready for a guest that runs elsewhere: empty disks, over the image file `base`, and its config drive.

        The drive is the guest's own, byte for byte, where its host has described it. Disks that hosts share are not
        empty, but the guest's own, under another name; `destroy` removes that.

        Checked is all that can be before: processor, hypervisor, whether migrations can come in, and with `post_copy`
        whether the guest can run here before all of it has come. `destroy` removes it.

        Raises:
            RescheduleError: this host cannot take it in, and why.
        """

    async def migrate(
        self, server_id: str, incoming: Incoming, limits: MigrationLimits, report: Report
    ) -> MigrationReport:
        """Send the running guest there; its files stay, and so does its definition, off.

        It runs there only when it is certain that it no longer does here. Where a migration is under way already, that
        one is followed. Whoever cancels the call ends the migration, unless the guest has been handed over.
        A host may let only so many leave at the same time: the others wait, and run, until it is their turn.

        Raises:
            Unavailable, RescheduleError: it did not work, and the guest is still here, as far as that is known.
            OperationFailed: it took too long.
        """

    async def end_migration(self, server_id: str) -> Whereabouts:
        """End a migration that is under way, if one is, and say where the guest is. One that is here runs then."""

    async def take_over(self, server_id: str, *, anew: bool = False) -> None:
        """Let a guest run that another host, where it is no more, has sent here. Nothing happens to one that runs.

        With `anew` it does not go on from its memory, but boots.

        Raises:
            NotFound: it has not come, or not as a whole.
        """

    async def arrival(self, server_id: str, *, refuse: bool = False) -> Arrival:
        """What there is of a guest that another host was to send here.

        With `refuse`, NOTHING is final: one that is still on its way does not arrive, and goes on where it was.
        """

    async def keep(self, server_id: str) -> None:
        """Forget that the guest was handed over, so that it can be started here again. Nothing is started by it."""

    async def force_complete(self, server_id: str) -> None:
        """Have the migration that is under way end soon, at the price of the guest's standing still.

        Raises:
            InvalidState: none is under way, or not yet.
        """

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
