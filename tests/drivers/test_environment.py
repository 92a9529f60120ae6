"""Programs that drivers run get nothing of the worker's environment but where programs are."""

from pathlib import Path

import pytest

from drivers.daemons import Daemon
from drivers.environment import clean
from drivers.image.qemu_img import run_limited

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def worker_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_ENCRYPTION__KEYS", SECRET)


def test_image_tools_get_none() -> None:
    assert SECRET not in run_limited("env").stdout
    assert "LC_ALL=C" in run_limited("env").stdout


def test_daemons_get_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "daemon"
    program.write_text("#!/bin/sh\nenv >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = Daemon("daemon", "package", tmp_path / "pid").start()
    assert "LC_ALL=C" in said
    assert SECRET not in said


def test_administrators_programs_are_found() -> None:
    assert "/usr/sbin" in clean()["PATH"].split(":")
