"""Traces are off until somebody names a collector; a client without OpenTelemetry is told what to install."""

import subprocess
import sys

import pytest

from hostler import tracing
from hostler.contract.errors import InvalidRequest, Unavailable
from hostler.settings import TracingSettings
from tests.observability.collector import run_collector

WHAT_IS_IMPORTED = """
import sys
from hostler import Client, tracing
from hostler.settings import TracingSettings
assert tracing.interceptors(TracingSettings(), "client") == []
tracing.flush()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_they_are_off_by_default_and_import_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", WHAT_IS_IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry" or name == "hostler.spans"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(Unavailable) as caught:
        tracing.interceptors(TracingSettings(endpoint="http://127.0.0.1:1"), "client")
    assert caught.value.detail.field == "tracing.endpoint"
    assert "pip install 'hostler[tracing]'" in (caught.value.remedy or "")


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://"])
def test_an_endpoint_is_a_url_of_http(endpoint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tracing.interceptors(TracingSettings(endpoint=endpoint), "client")
    assert (caught.value.detail.field, caught.value.detail.value) == ("tracing.endpoint", endpoint)
    assert caught.value.remedy


async def test_all_clients_of_a_process_share_one() -> None:
    async with run_collector() as collector:
        settings = TracingSettings(endpoint=collector.endpoint)
        one, other = (tracing.interceptors(settings, "test") for _ in range(2))
        assert one[0] is other[0]
