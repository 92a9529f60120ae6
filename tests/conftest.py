"""The Temporal server that tests share, and a namespace of its own for each test."""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from hostler.contract.names import SEARCH_ATTRIBUTES

pytest_plugins = ["tests.databases"]

TEMPORAL = Path(sys.executable).with_name("temporal")
TESTS = Path(__file__).parent
OTHERS = "others"
# The first that names a test has it. Four files are of the others so that all groups take equally long.
GROUPS = {
    OTHERS: (
        "faults/test_matrix.py",
        "neighbours/test_control_workers.py",
        "neighbours/test_database.py",
        "neighbours/test_temporal.py",
    ),
    "machine": ("drivers/hypervisor/libvirt", "end_to_end", "observability", "runbooks"),
    "lab": ("drivers/network", "faults", "lab", "neighbours", "upgrades"),
}
# Below those that the kernel chooses, a part for each of the processes that run tests at once: see tests/__main__.py.
PORTS_EACH = 1000
_PART = int(os.environ.get("TESTS_PORTS", 0)) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_FIRST_PORT = 20_000 + PORTS_EACH * _PART
_PORTS = itertools.cycle(random.sample(range(_FIRST_PORT, _FIRST_PORT + PORTS_EACH), PORTS_EACH))
# A fifth less of each Temporal server's processor time, whoever begins it: no thread waits for work beside another,
# and the heap is swept less often.
os.environ.update(GOMAXPROCS="1", GOGC="400")
START_LIMIT = timedelta(seconds=60)
# The development server waits between polls of its own queues, and lets no timer, nor pause before a retry, be shorter
# than a second; without these, each step costs 40 ms more, and each second try a second.
FAST = [f"history.{queue}ProcessorMaxPollRPS=2000" for queue in ("transfer", "timer", "visibility", "outbound")] + [
    'history.timerProcessorMaxTimeShift="10ms"',
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    # What the control worker does itself comes with the answer to the workflow's task: a sixth less work for all.
    "system.enableActivityEagerExecution=true",
]


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the marks for what `make test` leaves to `make faults`."""
    config.addinivalue_line("markers", "slow: takes a minute or more")
    config.addinivalue_line("markers", "sampled: all cases but the first, the middle and the last one count as slow")


def pytest_collection_finish() -> None:
    """Leave what is there for the whole run out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark those of the groups whose tests are not to run beside each other: see tests/__main__.py."""
    folder = item.path.relative_to(TESTS)
    groups = [name for name, parts in GROUPS.items() if any(folder.is_relative_to(part) for part in parts)]
    group, *_ = *groups, "machine" if item.get_closest_marker("real") else OTHERS
    if group != OTHERS:
        item.add_marker(getattr(pytest.mark, group))


@pytest.hookimpl(tryfirst=True)  # before others are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most cases of tests that have one for each step to `make faults`, as it strikes each step."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for of_test in cases.values():
        sample = {0, len(of_test) // 2, len(of_test) - 1}
        for item in (item for place, item in enumerate(of_test) if place not in sample):
            item.add_marker(pytest.mark.slow)


def free_port() -> int:
    """A TCP port that was free a moment ago, and that neither the kernel nor another process gives to anybody."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def run_temporal(port: int, *flags: str) -> Iterator[str]:
    """A development server on `port`, forgotten when it ends unless a flag names a file. Yields its address."""
    settings = [flag for value in FAST for flag in ("--dynamic-config-value", value)]
    command = [str(TEMPORAL), "server", "start-dev", "--headless", "--log-level", "never", "--port", str(port)]
    process = subprocess.Popen([*command, *settings, *flags], stdout=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(f"127.0.0.1:{port}"))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def _answers(address: str) -> None:
    async with asyncio.timeout(START_LIMIT.total_seconds()):
        while True:
            with contextlib.suppress(RuntimeError):
                await Client.connect(address)
                return
            await asyncio.sleep(0.1)


async def make_namespace(address: str) -> str:
    """A new namespace that knows Hostler's search attributes."""
    client = await Client.connect(address)
    name = f"test-{uuid4().hex[:12]}"
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=24 * 60 * 60))
    )
    attributes = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=name, search_attributes=attributes)
    )
    return name


@pytest.fixture(scope="module")
def temporal_server() -> Iterator[str]:
    """The address of a Temporal development server that a file's tests share: it slows down with each namespace."""
    with run_temporal(free_port()) as address:
        yield address


@pytest.fixture
def namespace(temporal_server: str) -> str:
    """A Temporal namespace of the test's own on the shared server, with Hostler's search attributes."""
    return asyncio.run(make_namespace(temporal_server))


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small qcow2 file."""
    file = tmp_path_factory.mktemp("disk") / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "64M"], check=True)
    return file
