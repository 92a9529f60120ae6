"""A worker of the lab with the faults in it: `python -m tests.faults.lab.worker control|host DIRECTORY`.

What it is told, and what it tells, is in the directory: a host's is on its disk, so a power cut leaves it.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import get_args

from temporalio.worker import StartActivityInput

from hostler.settings import load
from tests.faults.injection import Injector
from tests.faults.plan import OF_MACHINES, TIMED_OUT, Book, Fault
from tests.faults.process import Kind, work

SILENCE, WHOLE = timedelta(seconds=6), timedelta(seconds=8)
"""How long a step that is struck may be silent, and how long one may take that is always silent."""
HELD = timedelta(seconds=100)
"""How long one may take that is held until a host has come back."""


def shorten(input: StartActivityInput, fault: Fault) -> None:
    """Shorten the time-outs of a step that is to be struck; it has real work to do when it is tried again.

    One that waits for a host's return is given time for that: it must not be tried again before.
    """
    if fault is Fault.RETURNED:
        input.start_to_close_timeout, input.heartbeat_timeout = HELD, None
    elif fault not in TIMED_OUT.union(OF_MACHINES):
        return
    elif input.heartbeat_timeout is not None:
        input.heartbeat_timeout = min(input.heartbeat_timeout, SILENCE)
    elif input.start_to_close_timeout is not None:
        input.start_to_close_timeout = min(input.start_to_close_timeout, WHOLE)


def main() -> None:
    """The program."""
    [kind] = [one for one in get_args(Kind) if one == sys.argv[1]]
    directory, settings = Path(sys.argv[2]), load()
    directory.mkdir(exist_ok=True)
    work(kind, settings, Injector(Book(directory), settings, shorten))


if __name__ == "__main__":
    main()
