"""Where metrics are served: at the port of the settings, or not at all; and what is said when that cannot be."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hostler.contract.errors import Conflict, HostlerError, InvalidRequest
from hostler.settings import MetricsSettings, Settings, TemporalSettings
from tests.conftest import free_port
from tests.observability.conftest import scraped
from workers import dev, dev_metrics
from workers.census import Reading
from workers.gauges import MEANINGS, Gauges
from workers.metrics import make_runtime
from workers.processes import Program

CLOCK = "hostler_census_timestamp_seconds"


def settings(tmp_path: Path, port: int = 7233, **metrics: Any) -> Settings:
    return Settings(
        state_dir=tmp_path,
        temporal=TemporalSettings(address=f"127.0.0.1:{port}"),
        metrics=MetricsSettings(**metrics),
    )


def refused(ours: Settings, port: int) -> HostlerError:
    with pytest.raises(HostlerError) as caught:
        make_runtime(ours, "metrics.host_port", port)
    return caught.value


def test_a_port_that_is_taken_names_who_has_it_and_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(settings(tmp_path), port)
    assert isinstance(error, Conflict)
    assert (error.detail.field, error.detail.value) == ("metrics.host_port", str(port))
    assert f"port {port} is taken by" in str(error)
    assert f"(pid {os.getpid()})" in str(error)
    assert "HOSTLER_METRICS__HOST_PORT" in (error.remedy or "")


def test_an_address_that_is_not_ours_is_told(tmp_path: Path) -> None:
    error = refused(settings(tmp_path, address="192.0.2.1"), free_port())
    assert "nothing can listen at 192.0.2.1" in str(error)


def test_an_address_is_an_ip_address(tmp_path: Path) -> None:
    error = refused(settings(tmp_path, address="localhost"), free_port())
    assert isinstance(error, InvalidRequest)
    assert (error.detail.field, error.detail.value) == ("metrics.address", "localhost")


async def test_what_is_gone_falls_to_zero(tmp_path: Path) -> None:
    port = free_port()
    runtime = make_runtime(settings(tmp_path), "metrics.control_port", port)
    gauges = Gauges(runtime.metric_meter)
    gauges.show(
        "database", [Reading("hostler_owed_work", 3, {"host": "one"}), Reading("hostler_owed_work", 2, {"host": "two"})]
    )
    gauges.show("temporal", [Reading("hostler_operations_running", 7, {"operation": "boot"})])
    gauges.show("database", [Reading("hostler_owed_work", 2, {"host": "two"})])
    seen = await scraped(port)
    assert [seen.value("hostler_owed_work", host=host) for host in ("one", "two")] == [0, 2]
    assert seen.value("hostler_operations_running") == 7, "of which another source speaks"
    assert seen.value(CLOCK, source="database") > 1e9
    assert CLOCK in MEANINGS


class TestOfDev:
    """`hostler dev` serves metrics without being asked, and says where."""

    def test_ports_are_above_temporals(self, tmp_path: Path) -> None:
        port = free_port()
        found = dev_metrics.ports(settings(tmp_path, port), ["control", "codec", "host", "simulated"])
        assert found == {"control": port + 2000, "host": port + 2001, "simulated": port + 2002}

    def test_a_port_that_nobody_chose_gives_way(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            found = dev_metrics.ports(settings(tmp_path, port - 2000), ["control"])
        assert found["control"] not in (0, port)

    def test_a_port_that_was_chosen_is_kept_for_the_real_host(self, tmp_path: Path) -> None:
        found = dev_metrics.ports(settings(tmp_path, free_port(), host_port=9999), ["host", "simulated"])
        assert found["host"] == 9999
        assert found["simulated"] not in (0, 9999)

    def test_zero_is_none(self, tmp_path: Path) -> None:
        ours = settings(tmp_path, free_port(), control_port=0)
        assert dev_metrics.ports(ours, ["control"]) == {}
        told = dev_metrics.with_port(Program("control", ["x"], {"A": "b"}), {})
        assert told.environment == {"A": "b", "HOSTLER_METRICS__CONTROL_PORT": "0"}

    def test_workers_are_told_and_the_user_too(self, tmp_path: Path) -> None:
        plan = dev.plan(settings(tmp_path, free_port()), None, libvirt=False, simulated=1)
        programs = {program.name: program.environment for program in plan.workers}
        ports = [
            programs["control"]["HOSTLER_METRICS__CONTROL_PORT"],
            programs["simulated"]["HOSTLER_METRICS__HOST_PORT"],
        ]
        assert plan.metrics == [f"http://127.0.0.1:{port}/metrics" for port in ports]
        assert "HOSTLER_METRICS__HOST_PORT" not in programs["codec"]
