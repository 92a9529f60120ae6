"""A pattern that a guest writes to its root disk, behind its partitions, so that it takes a while to copy the disk."""

import json
import subprocess

from deploy.lab.host import Host

BYTE, BEGIN_MIB, PART_MIB, PARTS = 0o125, 64, 8, 40
WRITTEN = "=== the pattern is written"
USER_DATA = f"""#!/bin/sh
tr '\\0' '\\{BYTE:o}' </dev/zero | dd of=/run/pattern bs=1M count={PART_MIB} iflag=fullblock 2>/dev/null
for part in $(seq 0 {PARTS - 1}); do
    dd if=/run/pattern of=/dev/vda bs=1M seek=$(({BEGIN_MIB} + {PART_MIB} * part)) conv=notrunc 2>/dev/null
done
sync
rm /run/pattern
echo "{WRITTEN}"
"""


def arrived(host: Host, server_id: str) -> int:
    """How many bytes of a guest's root disk, which is being copied, have come to this host and need not come again."""
    file = host.directory / "state" / "guests" / f"{server_id}.incoming" / "disk.progress"
    try:
        return int(json.loads(file.read_text())["offset"])
    except FileNotFoundError:
        return 0


def complaint(host: Host, server_id: str) -> str:
    """What is wrong with the pattern on the root disk of a guest that runs there; nothing when it is all there."""
    disk = host.site.directory / "state" / "guests" / server_id / "disk"
    reading = f"read -P {BYTE:#x} {BEGIN_MIB}M {PART_MIB * PARTS}M"
    done = subprocess.run(
        host.inside("qemu-io", "--read-only", "--force-share", "--format", "qcow2", "-c", reading, str(disk)),
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else f"{done.stdout} {done.stderr}".strip()
