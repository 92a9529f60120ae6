"""All tests but the slow ones: those that use this machine's own guests and bridges one after the other, beside them
the others, in two processes. Most wait most of the time.
"""

import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "pytest"]
MACHINE = [*PYTEST, "-m", "machine and not slow"]
OTHERS = [*PYTEST, "-m", "not machine and not slow", "-n", "2", "--dist", "loadfile"]


def main() -> int:
    """Run both, and tell of each. 0 when none has failed."""
    with tempfile.TemporaryFile("w+") as told:
        machine = subprocess.Popen(MACHINE, stdout=told, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            others = subprocess.run(OTHERS).returncode
            code = machine.wait()
        finally:
            machine.terminate()
        told.seek(0)
        sys.stdout.write(told.read())
    return others or code


if __name__ == "__main__":
    sys.exit(main())
