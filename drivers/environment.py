"""The environment of the programs that drivers run: nothing of the worker's own, which may hold its keys."""

import os


def clean() -> dict[str, str]:
    """The plain locale, and where programs are."""
    return {"PATH": os.environ.get("PATH", f"{os.defpath}:/usr/sbin:/sbin"), "LC_ALL": "C"}
