"""A command's exit code is its own, whatever the interpreter's end would have made of it."""

import subprocess
import sys

from hostler.cli.exits import Exit

CRASHES_AT_THE_END = "import atexit, os; atexit.register(os.abort); from hostler.cli import main; main()"


def hostler(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run it in an interpreter that crashes when it ends, as threads of Temporal's native core may let it."""
    return subprocess.run([sys.executable, "-c", CRASHES_AT_THE_END, *words], capture_output=True, text=True)


def test_a_command_that_has_spoken_to_temporal_ends_as_it_should() -> None:
    ended = hostler("--temporal", "127.0.0.1:1", "server", "list")

    assert ended.returncode == Exit.UNAVAILABLE, ended.stderr
    assert "127.0.0.1:1" in ended.stderr
