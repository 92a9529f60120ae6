"""Runs qemu's image tools on files that nobody trusts: in a process of their own, with bounded memory and time.

The limits are those that Nova sets (`QEMU_IMG_LIMITS` in nova/virt/images.py): a crafted image has made qemu-img take
all of a machine's memory before (CVE-2015-5162).

What is limited is address space, and qemu starts up to 64 threads, the more the busier the machine. As glibc has it,
each reserves 8 MiB for its stack and 64 MiB or more for an arena of its own: that alone is over the limit, and a sound
image would be refused. So stacks are small, and there is one arena.
"""

import subprocess

from drivers.environment import clean
from hostler.contract.errors import Unavailable

CPU_LIMIT_SECONDS = 30
MEMORY_LIMIT_BYTES = 1 << 30
WALL_LIMIT_SECONDS = 300
THREAD_STACK_BYTES = 1 << 20
LIMITS = f"{CPU_LIMIT_SECONDS} s of processor time or {MEMORY_LIMIT_BYTES >> 30} GiB of memory"


def run_limited(*command: str) -> subprocess.CompletedProcess[str]:
    """Run an image tool and return what it said, whatever its exit code; a limit that it hit shows as a negative one.

    Raises:
        Unavailable: the tool is not installed, or the disks are too slow for it.
    """
    limits = [f"--cpu={CPU_LIMIT_SECONDS}", f"--as={MEMORY_LIMIT_BYTES}", f"--stack={THREAD_STACK_BYTES}", "--core=0"]
    try:
        done = subprocess.run(
            ["prlimit", *limits, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WALL_LIMIT_SECONDS,
            env=clean() | {"MALLOC_ARENA_MAX": "1"},
        )
    except FileNotFoundError as error:
        raise Unavailable("prlimit is not installed here", remedy="install the package util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} gave no answer within {WALL_LIMIT_SECONDS} s") from error
    if done.returncode == 127 and "prlimit" in done.stderr:
        raise Unavailable(f"{command[0]} is not installed here", remedy="install the package qemu-utils")
    return done
