"""What the programs of this folder take over from their environment."""

import os


def forget_other_clouds() -> None:
    """Drop settings of Hostler's: they are for another cloud than the one that is about to be made."""
    for name in [name for name in os.environ if name.startswith("HOSTLER_")]:
        del os.environ[name]
