"""How a hold is shown: what failed and why, until when it waits, and the commands by which it is decided on."""

from collections.abc import Iterator

from hostler.cli.output import cell
from hostler.contract.servers import Choice, Hold

COMMANDS = {
    Choice.RETRY: "hostler operation retry {server}",
    Choice.MOVE: "hostler operation move {server} [--host HOST]",
    Choice.GIVE_UP: "hostler operation give-up {server}",
}


def where(hold: Hold) -> str:
    """The step, and the host if it was on one."""
    return f"{hold.step} on {hold.host}" if hold.host else hold.step


def summary(hold: Hold) -> str:
    """A hold in one line."""
    return f"{hold.operation} holds at {where(hold)}: {hold.error.message}"


def deadline(hold: Hold) -> str:
    """Since when it waits, and for how long."""
    return f"since {cell(hold.since)}; gives up by itself at {cell(hold.until)}"


def commands(hold: Hold, server: str) -> Iterator[str]:
    """What an operator can type now."""
    for choice in hold.choices:
        yield COMMANDS[choice].format(server=server)
