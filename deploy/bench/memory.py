"""What each process of a small cloud holds in memory, and what they use while nobody asks for anything."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MIB = 2**20
IDLE_SECONDS = 10
START_LIMIT = 120
HOSTLER = Path(sys.executable).with_name("hostler")


def run() -> dict[str, dict[str, float]]:
    """PSS in MiB (what is shared counts in part for each) and per cent of one core, by process, of `hostler dev`."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        supervisor = start(directory)
        try:
            wait_ready(supervisor)
            return figures(psutil.Process(supervisor.pid))
        finally:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait()


def start(directory: str) -> subprocess.Popen[str]:
    """A cloud with the real host of this machine, on ports of its own."""
    environment = os.environ | {
        "HOSTLER_STATE_DIR": directory,
        "HOSTLER_TEMPORAL__ADDRESS": f"127.0.0.1:{free_port()}",
        "HOSTLER_TEMPORAL__UI_URL": f"http://127.0.0.1:{free_port()}",
    }
    return subprocess.Popen(
        [HOSTLER, "dev"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_ready(supervisor: subprocess.Popen[str]) -> None:
    """Read its output until it says that the cloud is ready.

    Raises:
        RuntimeError: it ended, or took too long; with what it said.
    """
    said: list[str] = []
    deadline = time.monotonic() + START_LIMIT
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        said.append(line)
        if "ready after" in line:
            return
        if time.monotonic() > deadline:
            break
    raise RuntimeError("hostler dev did not become ready:\n" + "".join(said))


def figures(supervisor: psutil.Process) -> dict[str, dict[str, float]]:
    """Of the supervisor and each of its children, after a while without work, and of all together."""
    processes = {"supervisor": supervisor} | {name(child): child for child in supervisor.children(recursive=True)}
    for process in processes.values():
        process.cpu_percent()
    time.sleep(IDLE_SECONDS)
    result = {
        label: {"pss_mib": round(process.memory_full_info().pss / MIB, 1), "cpu_percent": process.cpu_percent()}
        for label, process in processes.items()
    }
    totals = {key: round(sum(each[key] for each in result.values()), 1) for key in ("pss_mib", "cpu_percent")}
    return result | {"together": totals}


def name(process: psutil.Process) -> str:
    """What a child of the supervisor is."""
    command = process.cmdline()
    if "worker" in command:
        return f"{command[command.index('worker') + 1]} worker"
    return process.name()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
