"""The environment of the programs that drivers run: nothing of the worker's own, which may hold its keys."""

import os


def clean() -> dict[str, str]:
    """The plain locale, and where programs are, those for administrators too."""
    return {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
