"""The command line."""

import sys


def main() -> None:
    """Run `hostler`."""
    from hostler.cli.app import app
    from hostler.cli.ending import NATIVE_CORE, end

    try:
        app(prog_name="hostler")
    except SystemExit as ending:
        if NATIVE_CORE in sys.modules and isinstance(ending.code, int):
            end(ending.code)
        raise
