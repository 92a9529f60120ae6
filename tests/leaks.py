"""Looks for secrets where they must not be: in bytes, files, processes, histories and tables."""

import base64
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import psutil
import temporalio.client
from google.protobuf.message import Message
from sqlalchemy import text
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import (
    DescribeActivityExecutionRequest,
    DescribeWorkflowExecutionRequest,
    ListActivityExecutionsRequest,
)
from temporalio.client import WorkflowHistory

from hostler.codec import ENCODING, ENCRYPTED
from models import Database, Table

READABLE = {"search_attributes", "header", "custom_attributes"}
"""The fields of Temporal's whose payloads no codec encrypts."""
PATCHED = "core_patch"
"""The markers of `workflow.patched`, which the SDK's core writes: the ID of a change of the code."""


class Leaks:
    """What was found: where, and which secret by its name."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self._forms = {name: forms(secret) for name, secret in secrets.items()}
        self.found: list[tuple[str, str]] = []
        self.looked_at = 0

    def look(self, place: str, content: bytes, allowed: Iterable[str] = ()) -> None:
        """Look into something in which the secrets `allowed` may be."""
        self.looked_at += 1
        for name, wanted in self._forms.items():
            if name not in allowed and any(form in content for form in wanted):
                self.found.append((place, name))


def forms(secret: bytes) -> set[bytes]:
    """The secret as it is, in hex, and in base64 and base64 of base64, wherever in the encoded text it begins."""
    once = encoded(secret)
    return {secret, secret.hex().encode(), *once, *(twice for form in once for twice in encoded(form))}


def encoded(secret: bytes) -> set[bytes]:
    """What does not depend on its neighbours of its base64 at each of the three positions."""
    found = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret)
        # The first characters have bits of what is before, the last group those of what is behind.
        found.add(whole[(4 if before else 0) : -4])
    return found


def files(directory: Path) -> Iterator[Path]:
    """All regular files below a directory."""
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def cloud_processes(*roots: int, directory: Path) -> list[psutil.Process]:
    """The processes below these, and every other one that names the cloud's directory: its daemons and guests."""
    found = {process.pid: process for root in roots for process in psutil.Process(root).children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join(process.cmdline()):
                found[process.pid] = process
        except psutil.Error:
            continue
    return list(found.values())


async def raw_records(client: temporalio.client.Client) -> AsyncIterator[tuple[str, Message]]:
    """Every workflow's events and description, every standalone activity's description, as Temporal has them."""
    service, namespace = client.workflow_service, client.namespace
    async for run in client.list_workflows():
        history: WorkflowHistory = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        for event in history.events:
            yield f"{run.id}, {run.workflow_type}, event {event.event_id}", event
        asked = DescribeWorkflowExecutionRequest(namespace=namespace)
        asked.execution.workflow_id, asked.execution.run_id = run.id, run.run_id
        yield f"{run.id}, described", await service.describe_workflow_execution(asked)
    page = b""
    while True:
        listed = await service.list_activity_executions(
            ListActivityExecutionsRequest(namespace=namespace, page_size=100, next_page_token=page)
        )
        for one in listed.executions:
            described = DescribeActivityExecutionRequest(
                namespace=namespace,
                activity_id=one.activity_id,
                run_id=one.run_id,
                include_input=True,
                include_outcome=True,
            )
            yield f"activity {one.activity_id}", await service.describe_activity_execution(described)
        page = listed.next_page_token
        if not page:
            return


def readable_payloads(message: Message, path: str = "") -> Iterator[str]:
    """Where a message has payloads that are not encrypted, but for those that never can be."""
    if isinstance(message, Payload):
        if message.metadata.get(ENCODING) != ENCRYPTED:
            yield path
        return
    if getattr(message, "marker_name", "") == PATCHED:
        return
    for field, value in message.ListFields():
        if field.name in READABLE or field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            children = [one for one in value.values() if isinstance(one, Message)]
        else:
            children = list(value) if field.is_repeated else [value]
        for child in children:
            yield from readable_payloads(child, f"{path}.{field.name}")


def rows(database: Database) -> Iterator[tuple[str, bytes]]:
    """Every row of every table."""
    with database.connect() as connection:
        for name in Table.metadata.tables:
            for row in connection.execute(text(f'SELECT * FROM "{name}"')):
                yield name, repr(tuple(row)).encode()
