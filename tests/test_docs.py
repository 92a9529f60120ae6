"""What the documentation says is true: links lead somewhere, every command and setting is there, the examples run."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from hostler.cli.app import Root
from hostler.cli.exits import Exit
from hostler.client import Client, Operation
from hostler.contract.names import SEARCH_ATTRIBUTES
from hostler.contract.servers import OperationName
from hostler.contract.states import STATUS_BY_VM_STATE
from hostler.settings import Settings
from tests.cloud import DEMO, Cloud, run_cloud
from workers import commands

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy" / "runbooks").glob("*.md")),
]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
CONCEPTS = (ROOT / "docs" / "concepts.md").read_text()
OPERATIONS = [name for name in OperationName if name not in (OperationName.AUDIT, OperationName.HYPERVISOR)]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^\| `([a-z_.]+)` \| (.+?) \|", re.MULTILINE)
ON_THE_MACHINE = {"state_dir", "images", "database.url", "host.name"}
"""Settings whose defaults depend on the machine or on others."""


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in map(_anchor, HEADING.findall(target.read_text())), link


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def _commands() -> Iterator[str]:
    groups = {name: import_module(builtin.module).app for name, builtin in Root.builtins.items()}
    for name, group in (groups | {"worker": commands.worker, "db": commands.db}).items():
        for command in vars(get_command(group)).get("commands", [""]):  # or it is a command itself
            yield f"hostler {name} {command}".strip()
    yield "hostler dev"


@pytest.mark.parametrize("command", list(_commands()))
def test_every_command_is_in_the_reference(command: str) -> None:
    assert re.search(rf"`{re.escape(command)}[ `]", REFERENCE)


@pytest.mark.parametrize("code", list(Exit), ids=str)
def test_every_exit_code_is_in_the_reference(code: Exit) -> None:
    assert f"\n| {code.value} | " in REFERENCE


def _settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting with its default, as the reference writes it."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(model.model_dump(mode="json")[name])


def test_the_reference_has_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("HOSTLER_")]:
        monkeypatch.delenv(variable)
    documented = dict(SETTING.findall(REFERENCE.split("\n## Settings\n")[1].split("\n## ")[0]))
    defaults = dict(_settings(Settings()))
    assert documented.keys() == defaults.keys()
    for name, default in defaults.items():
        if name not in ON_THE_MACHINE:
            assert documented[name] == f"`{default}`", name


@pytest.mark.parametrize("name", [*OPERATIONS, *STATUS_BY_VM_STATE.values()])
def test_every_operation_and_every_status_is_in_the_table_of_the_concepts(name: str) -> None:
    rows = [line for line in CONCEPTS.split("\n## ")[1].splitlines() if line.startswith("|")]
    assert any(re.search(rf"(?<![\w-]){name}(?![\w-])", row) for row in rows)


def _public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_every_search_attribute_is_in_the_commands_that_register_them() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    for key in SEARCH_ATTRIBUTES:
        assert re.search(rf"\b{key.name}\b", operations), key.name


def test_the_clients_page_has_every_method() -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    client = Client(_Unconnected())  # type: ignore[arg-type]  # it is never called
    for name, namespace in vars(client).items():
        if not name.startswith("_"):
            assert f"`client.{name}`" in page
            assert all(f"`{method}`" in page for method in _public(type(namespace))), name
    assert all(f"`operation.{method}(" in page for method in _public(Operation))


class _Unconnected:
    project = "default"


@pytest.fixture
async def cloud(temporal_server: str, namespace: str, tmp_path: Path, tables: Path, disk: Path) -> AsyncIterator[Cloud]:
    """A cloud with what the README's walk through the command line has made."""
    async with run_cloud(temporal_server, namespace, tmp_path, tables, disk) as cloud:
        assert DEMO == "demo"
        await cloud.client.flavors.create("small", vcpus=1, ram_mib=128)
        await cloud.client.networks.create("lan", cidr="10.20.0.0/24")
        yield cloud


def _examples() -> Iterator[Any]:
    for page in PAGES:
        for number, example in enumerate(EXAMPLE.findall(page.read_text()), 1):
            yield pytest.param(example, id=f"{_name(page)}-{number}")


@pytest.mark.parametrize("example", list(_examples()))
async def test_examples_run(example: str, cloud: Cloud) -> None:
    temporal = cloud.settings.temporal
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example),
        env={
            **os.environ,
            "HOSTLER_TEMPORAL__ADDRESS": temporal.address,
            "HOSTLER_TEMPORAL__NAMESPACE": temporal.namespace,
            "HOSTLER_STATE_DIR": str(cloud.settings.state_dir),  # where its encryption key is
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    assert "on sim-1" in output.decode()
