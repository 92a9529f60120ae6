"""What a new user sees first."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.end_to_end.conftest import ROOT

LIMIT = 240


def test_the_demo_shows_what_it_promises_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="hostler-test-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)  # QEMU and dnsmasq run as users of their own
        cloud = Path(directory) / "cloud"
        demo = subprocess.run(
            [sys.executable, ROOT / "deploy" / "demo" / "demo.py", "--directory", cloud],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert not cloud.exists()
