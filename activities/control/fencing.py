"""Makes sure that a host is off, by the operator's command."""

from collections.abc import Sequence
from datetime import timedelta

from activities.control.commands import OperatorsCommand


async def fence(command: Sequence[str], timeout: timedelta, name: str, host_id: str) -> None:
    """Run the command with the host's name and UUID, as its last arguments and in its environment.

    Raises:
        InvalidRequest: it cannot be run. Unavailable: it failed, or took too long.
    """
    fencing = OperatorsCommand(
        words=command,
        timeout=timeout,
        setting="host_failure.fence_command",
        title=f"the fence command for host {name}",
        remedy="see why; it is not known whether the host is off. Once it surely is: "
        f"hostler host evacuate {name} --force",
    )
    told = {"HOSTLER_HOST_NAME": name, "HOSTLER_HOST_ID": host_id}
    await fencing.run([name, host_id], told, f"fences {name}")
