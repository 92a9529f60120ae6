"""`make soak MINUTES=10`: run the soak, print the summary, exit with 1 if the product failed."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from temporalio.runtime import Runtime, TelemetryConfig

from tests.soak.soak import TENANTS, soak


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of killing; settling comes on top")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of all that is random")
    parser.add_argument("--tenants", type=int, default=TENANTS, help="each has one operation in flight")
    parser.add_argument("--directory", type=Path, help="for its logs and state [default: a new one in /var/tmp]")
    given = parser.parse_args()
    directory = given.directory or Path(tempfile.mkdtemp(prefix="hostler-soak-", dir="/var/tmp"))
    directory.mkdir(parents=True, exist_ok=True)
    Runtime.set_default(
        Runtime(telemetry=TelemetryConfig(logging=None))
    )  # it would tell of every call that is repeated
    print(f"seed {given.seed}; log {directory / 'soak.log'}", flush=True)
    report = asyncio.run(soak(directory, given.minutes, given.seed, given.tenants))
    print(report.text())
    return 1 if report.faults else 0


sys.exit(main())
