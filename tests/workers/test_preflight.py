"""What is in the way is told before anything starts, with what to do about it."""

import os
import socket
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from hostler.settings import LibvirtSettings, MetricsSettings, Settings, TemporalSettings
from tests.conftest import free_port
from workers import preflight
from workers.preflight import GIB, Problem

Usage = namedtuple("Usage", "total used free")


def settings(state_dir: Path, port: int | None = None) -> Settings:
    temporal = TemporalSettings(address=f"127.0.0.1:{port or free_port()}", ui_url=f"http://127.0.0.1:{free_port()}")
    return Settings(state_dir=state_dir, temporal=temporal)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    assert problems[0].remedy, "it says what to do"
    return problems[0]


def test_a_good_machine_has_no_problems(tmp_path: Path) -> None:
    assert preflight.check(settings(tmp_path / "state"), libvirt=False) == []


def test_a_taken_port_names_who_has_it_and_the_setting_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        problem = only(preflight.check_ports(settings(tmp_path, port)))
    assert problem.fatal
    assert f"port {port} is taken by" in problem.what
    assert f"(pid {os.getpid()})" in problem.what
    assert "temporal.address (HOSTLER_TEMPORAL__ADDRESS)" in problem.remedy


def test_the_port_of_the_web_ui_is_looked_at_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ui_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        temporal = TemporalSettings(address=f"127.0.0.1:{free_port()}", ui_url=ui_url)
        problem = only(preflight.check_ports(Settings(state_dir=tmp_path, temporal=temporal)))
    assert "HOSTLER_TEMPORAL__UI_URL" in problem.remedy


@pytest.mark.parametrize("setting", ["control_port", "host_port"])
def test_the_ports_of_metrics_are_looked_at_where_they_are_set(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = MetricsSettings.model_validate({setting: port})
        problem = only(preflight.check_ports(settings(tmp_path).model_copy(update={"metrics": metrics})))
    assert problem.fatal
    assert f"port {port} is taken by" in problem.what
    assert f"metrics.{setting} (HOSTLER_METRICS__{setting.upper()})" in problem.remedy


def test_an_address_that_is_not_ours_is_no_place_to_listen() -> None:
    problem = preflight.port_problem("temporal.address", "192.0.2.1", 7233)
    assert problem is not None
    assert "192.0.2.1:7233" in problem.what


@pytest.mark.parametrize(
    ("free_gib", "total_gib", "fatal"), [(50, 500, None), (3, 10, None), (20, 500, False), (1.9, 10, True)]
)
def test_a_full_disk_is_refused_and_a_nearly_full_one_told(free_gib: float, total_gib: int, fatal: bool | None) -> None:
    problems = list(preflight.disk_problems(Path("state"), int(free_gib * GIB), total_gib * GIB))
    assert [problem.fatal for problem in problems] == ([] if fatal is None else [fatal])


def test_the_disk_of_the_state_directory_is_the_one_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {tmp_path: Usage(100 * GIB, 99 * GIB, 1 * GIB)}
    monkeypatch.setattr("workers.preflight.shutil.disk_usage", full.__getitem__)
    assert "only 1.0 GiB of 100.0 GiB are free" in only(preflight.check_state_dir(tmp_path)).what


def test_a_state_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = only(preflight.check_state_dir(tmp_path / "file" / "state"))
    assert "Not a directory" in problem.what
    assert "HOSTLER_STATE_DIR" in problem.remedy


def test_missing_commands_are_told_with_their_debian_packages() -> None:
    wanted = {"sh": "dash", "qemu-of-my-dreams": "qemu-utils", "nft-of-my-dreams": "nftables"}
    problem = only(preflight.check_commands(wanted))
    assert problem.what == "not installed: qemu-of-my-dreams, nft-of-my-dreams"
    assert problem.remedy == "apt-get install nftables qemu-utils"


def test_missing_python_packages_are_told() -> None:
    assert "libdream" in only(preflight.check_packages({"json": "json", "libdream": "libdream"})).what


@pytest.mark.parametrize(
    ("capabilities", "allowed"), [(0, False), (1 << 12, True), (0x1FFFFFFFFFF, True), (0xFFF, False)]
)
def test_bridges_need_the_capability_to_make_them(capabilities: int, allowed: bool) -> None:
    assert (preflight.check_privileges(capabilities) == []) is allowed


def test_a_directory_that_qemu_cannot_get_to_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    home.chmod(0o700)
    problem = only([p for p in preflight.check_reachable(home / "state") if str(home) in p.what])
    assert not problem.fatal
    assert str(home) in problem.remedy


def test_a_libvirt_that_is_not_there() -> None:
    pytest.importorskip("libvirt")
    problem = only(preflight.check_libvirt(LibvirtSettings(uri="qemu+unix:///system?socket=/nowhere/libvirt-sock")))
    assert problem.fatal
    assert "/nowhere/libvirt-sock" in problem.what


def test_a_hypervisor_is_not_looked_for_where_none_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "COMMANDS", {"qemu-of-my-dreams": "qemu"})
    assert preflight.check(settings(tmp_path), libvirt=False) == []
    assert preflight.check(settings(tmp_path), libvirt=True) != []


@pytest.mark.real
def test_this_machine_can_run_guests() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)  # unlike pytest's own, QEMU's user may enter it
        problems = preflight.check(settings(Path(directory) / "state"), libvirt=True)
    assert not [problem for problem in problems if problem.fatal]
    told = [problem.what for problem in problems]
    assert all("without KVM" in what or "nearly full" in what for what in told), told
