"""All tests but the slow ones, in groups that run side by side, as most tests wait most of the time: those that use
this machine's own guests; those that use a lab, or strike a cloud of many processes; and the others, by three.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

PYTEST = [sys.executable, "-m", "pytest"]
ONE_BY_ONE = ("machine", "lab")
OTHERS = " and ".join(f"not {group}" for group in (*ONE_BY_ONE, "slow"))
AT_ONCE = ("-n", "3", "--dist", "loadfile")
PARTS = "TESTS_PORTS"
"""Which part of the ports is whose: see `free_port` in tests/conftest.py."""


def main() -> int:
    """Run all of them, and tell of each group. 0 when none has failed."""
    with ExitStack() as at_the_end:
        beside = []
        for part, group in enumerate(ONE_BY_ONE):
            told = at_the_end.enter_context(tempfile.TemporaryFile("w+"))
            process = begin(group, part, told)
            at_the_end.callback(process.wait)
            at_the_end.callback(process.terminate)
            beside.append((process, told))
        codes = [subprocess.run([*PYTEST, "-m", OTHERS, *AT_ONCE], env=environment(len(beside))).returncode]
        for process, told in beside:
            codes.append(process.wait())
            told.seek(0)
            sys.stdout.write(told.read())
            sys.stdout.flush()
    return max(codes, key=abs)


def begin(group: str, part: int, told: IO[str]) -> "subprocess.Popen[bytes]":
    """Run a group, one test after the other; what it says goes to `told`."""
    command = [*PYTEST, "-m", f"{group} and not slow"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT, env=environment(part)
    )


def environment(part: int) -> dict[str, str]:
    """The environment of a process that has these ports, and those after them for processes that it begins."""
    return {**os.environ, PARTS: str(part)}


if __name__ == "__main__":
    sys.exit(main())
