"""What the command line's exit codes mean."""

from enum import IntEnum


class Exit(IntEnum):
    """One code for each thing that a script may want to tell apart."""

    DONE = 0
    UNEXPECTED = 1
    INVALID = 2
    NOT_FOUND = 3
    CONFLICT = 4
    QUOTA = 5
    FAILED = 6
    UNAVAILABLE = 7
    FOUND = 8
    KEEPS = 9
    ALARM = 10
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.UNEXPECTED: "unexpected error",
    Exit.INVALID: "bad usage or invalid request",
    Exit.NOT_FOUND: "not found",
    Exit.CONFLICT: "conflict, busy, or in the wrong state",
    Exit.QUOTA: "quota exceeded",
    Exit.FAILED: "the operation failed (a server that failed to build is in ERROR)",
    Exit.UNAVAILABLE: "a service does not answer",
    Exit.FOUND: "the audit found what it did not heal",
    Exit.KEEPS: "the host is drained, and must stay on for the volumes that it keeps",
    Exit.ALARM: "a host's failure waits for a person: the watch has an alarm, or a host is stuck",
    Exit.INTERRUPTED: "interrupted; what was begun goes on",
}

BY_ERROR = {
    "InvalidRequest": Exit.INVALID,
    "DecryptionFailed": Exit.INVALID,
    "NotFound": Exit.NOT_FOUND,
    "Conflict": Exit.CONFLICT,
    "ServerBusy": Exit.CONFLICT,
    "InvalidState": Exit.CONFLICT,
    "QuotaExceeded": Exit.QUOTA,
    "Unavailable": Exit.UNAVAILABLE,
}


def exit_code(code: str, *, accepted: bool = False) -> Exit:
    """The exit code for a Hostler error's own code.

    What goes wrong after an operation was `accepted` has failed the operation, whatever it is.
    """
    exit = BY_ERROR.get(code, Exit.FAILED)
    return Exit.FAILED if accepted and exit is not Exit.UNAVAILABLE else exit
