"""Runs nftables scripts, each one transaction. Calls block."""

import subprocess

from drivers.environment import clean
from hostler.contract.errors import RescheduleError

TIMEOUT_SECONDS = 30


def apply(script: str) -> None:
    """Run the script: all of it, or nothing.

    Raises:
        RescheduleError: nftables refuses.
    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=clean()
        )
    except FileNotFoundError as error:
        raise RescheduleError("nft is not installed on this host", remedy="install the package nftables") from error
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or ["no reason given"]
        raise RescheduleError(
            f"nftables refuses the rules of this host's networks: {complaint[0]}",
            remedy="the worker needs CAP_NET_ADMIN and a kernel with nf_tables, its bridge family and NAT",
        )


def replacing(table: str, rules: str) -> str:
    """The script that makes a table what the rules say, whatever it was; without rules it is gone."""
    # Adding the table before deleting it: deleting one that is not there is an error.
    return f"add table {table}\ndelete table {table}\n{rules}"
