"""Daemons of a host: when one has ended, all that it had is free."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.daemons import Daemon

PROGRAM = "listener"
SOURCE = """
import mmap, os, signal, socket, sys
if sys.argv[-1] == "--obstinate":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
heard, tell = os.pipe()
if os.fork():
    sys.exit(not os.read(heard, 1))
open("/proc/self/comm", "w").write("listener")
memory = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
open(sys.argv[1].removeprefix("--pid-file="), "w").write(str(os.getpid()))
os.close(1), os.close(2), os.write(tell, b"x")
signal.pause()
"""
"""It has much memory, which the kernel takes from a dying process before it closes its sockets."""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that listens on the port it is given."""
    (tmp_path / "source.py").write_text(SOURCE)
    program = tmp_path / "bin" / PROGRAM
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nexec -a {PROGRAM} {sys.executable} {tmp_path}/source.py "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    daemon = Daemon(PROGRAM, "none", tmp_path / "pid")
    yield daemon
    daemon.stop()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("manner", ["--obedient", "--obstinate"])
def test_who_has_stopped_has_let_go_of_its_port(
    daemon: Daemon, port: int, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.daemons.STOP_SECONDS", 2)
    assert daemon.start(str(port), manner) == ""
    assert listens(port)
    daemon.stop()
    assert not listens(port)
    assert daemon.arguments() is None


def test_one_that_was_just_killed_does_not_stand_in_the_way_of_the_next(daemon: Daemon, port: int) -> None:
    assert daemon.start(str(port)) == ""
    daemon.signal(signal.SIGKILL)
    while daemon.arguments():
        pass
    assert daemon.start(str(port)) == ""
    assert listens(port)


def test_a_pid_that_is_somebody_elses_is_not_touched(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    assert daemon.handle() is None
    daemon.signal(signal.SIGKILL)
    daemon.stop()
    assert not (tmp_path / "pid").exists()
