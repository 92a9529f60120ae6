"""The commands of hostler-server, as an operator types them: what they do, and how they refuse."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import free_port
from workers.dev import hostler


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOSTLER_STATE_DIR": str(tmp_path / "state"),
        "HOSTLER_TEMPORAL__ADDRESS": f"127.0.0.1:{free_port()}",
        "HOSTLER_TEMPORAL__UI_URL": f"http://127.0.0.1:{free_port()}",
    }


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(hostler(*words), env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_database_is_made_and_then_left_alone(environment: dict[str, str]) -> None:
    assert "database: empty" in run(environment, "db", "current").stdout
    assert "is now at revision" in run(environment, "db", "upgrade").stdout
    again = run(environment, "db", "upgrade")
    assert (again.returncode, "is now" in again.stdout) == (0, False)
    shown = run(environment, "db", "current").stdout.split()
    assert shown[1] == shown[3], "what it has is what is needed"


def test_a_control_worker_without_its_database_says_what_to_run(environment: dict[str, str]) -> None:
    refused = run(environment, "worker", "control")
    assert refused.returncode == 4
    assert "hostler db upgrade" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("words", [["worker", "host"], ["dev"], ["db", "upgrade"]])
def test_a_bad_setting_is_named(environment: dict[str, str], words: list[str]) -> None:
    refused = run({**environment, "HOSTLER_HOST__CPU_RATIO": "-1"}, *words)
    assert refused.returncode == 2
    assert "host.cpu_ratio" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_settings_file_that_is_not_there_is_named(environment: dict[str, str]) -> None:
    refused = run(environment, "--config", "/nowhere/hostler.toml", "dev")
    assert refused.returncode == 2
    assert "/nowhere/hostler.toml" in refused.stderr


def test_what_is_in_the_way_of_a_cloud_is_told_before_anything_starts(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run({**environment, "HOSTLER_TEMPORAL__ADDRESS": f"127.0.0.1:{port}"}, "dev", "--no-libvirt")
    assert refused.returncode == 7
    assert f"port {port} is taken" in refused.stderr
    assert "HOSTLER_TEMPORAL__ADDRESS" in refused.stderr
    assert not (Path(environment["HOSTLER_STATE_DIR"]) / "hostler.db").exists()
