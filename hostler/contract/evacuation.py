"""Which servers are evacuated when their host fails, and in which order."""

from collections.abc import Iterable, Mapping

from hostler.contract.checks import reject
from hostler.contract.host_work import EVACUATE_KEY, PRIORITY_KEY

TRUTHS = {"true": True, "false": False}
UTMOST = 100
"""Tenants write the metadata of their servers: beyond this nobody gets ahead of the others."""


def evacuated(server: Mapping[str, str], aggregates: Iterable[Mapping[str, str]], default: bool) -> bool:
    """Whether a server with this metadata is evacuated: by its own word, its host's aggregates', or the setting's.

    Of aggregates that do not agree the one that says no decides: nothing is lost by waiting for a person.
    """
    if (own := TRUTHS.get(server.get(EVACUATE_KEY, ""))) is not None:
        return own
    said = {TRUTHS.get(aggregate.get(EVACUATE_KEY, "")) for aggregate in aggregates} - {None}
    return False not in said if said else default


def priority(server: Mapping[str, str]) -> int:
    """The server's priority, between -100 and 100; higher ones go first."""
    try:
        return max(-UTMOST, min(UTMOST, int(server.get(PRIORITY_KEY, "0"))))
    except ValueError:  # an older version took whatever was written there
        return 0


def check_policy(metadata: Mapping[str, str | None]) -> None:
    """See that the keys that mean something to Hostler have values that it understands.

    Raises:
        InvalidRequest: one has not.
    """
    truth = metadata.get(EVACUATE_KEY)
    if truth is not None and truth not in TRUTHS:
        reject(f"metadata[{EVACUATE_KEY}]", truth, "is neither true nor false", "write true or false")
    number = metadata.get(PRIORITY_KEY)
    if number is not None:
        try:
            int(number)
        except ValueError:
            reject(f"metadata[{PRIORITY_KEY}]", number, "is no integer", "write one, such as 10 or -5")
