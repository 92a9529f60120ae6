"""How a process of `hostler` ends."""

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

NATIVE_CORE = "temporalio.bridge.temporal_sdk_bridge"


def end(code: int) -> NoReturn:
    """End the process now that all is closed.

    The interpreter's own end is left out: threads of Temporal's native core may crash in it.
    """
    if "hostler.tracing" in sys.modules:
        from hostler import tracing

        tracing.flush()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
