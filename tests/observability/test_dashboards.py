"""The dashboard and the alert rules ask for metrics that workers really export, and lead to runbooks that are there."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from hostler.settings import MetricsSettings, Settings
from tests.conftest import free_port
from tests.observability.conftest import Observed, scraped
from workers.metrics import make_runtime

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "deploy" / "runbooks"
FOLDER = ROOT / "deploy" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
STRING, SELECTOR = re.compile(r'"[^"]*"'), re.compile(r"\{[^}]*\}|\[[^\]]*\]")
LISTED = re.compile(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)")
NAME = re.compile(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()")
OF_PROMETHEUS = {"up"}
OPERATORS = {"and", "or", "unless", "bool", "by", "on"}


def names(query: str) -> set[str]:
    """The metrics that a query asks for: all its words that are no function, label or operator."""
    bare = LISTED.sub("", SELECTOR.sub("", STRING.sub("", query)))
    return set(NAME.findall(bare)) - OPERATORS


def queries() -> Iterator[Any]:
    """All queries, with where they are."""
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")


@workflow.defn
class Broken:
    """A workflow whose code does not fit."""

    @workflow.run
    async def run(self) -> None:
        raise RuntimeError("it does not fit")


@pytest.fixture
async def of_a_broken_release(temporal_server: str, namespace: str) -> set[str]:
    """What a worker exports beside the rest when its workflows do not fit."""
    port = free_port()
    runtime = make_runtime(Settings(metrics=MetricsSettings(control_port=port)), "metrics.control_port", port)
    client = await Client.connect(temporal_server, namespace=namespace, runtime=runtime)
    async with Worker(client, task_queue="q", workflows=[Broken], workflow_runner=UnsandboxedWorkflowRunner()):
        run = await client.start_workflow(Broken.run, id="broken", task_queue="q")
        seen = await scraped(port, lambda seen: seen.value("temporal_workflow_task_execution_failed_total") > 0)
        await run.terminate()
    return seen.names()


async def test_every_metric_is_exported(observed: Observed, of_a_broken_release: set[str]) -> None:
    known = observed.exported() | of_a_broken_release | OF_PROMETHEUS
    asked = {name: query.id for query in queries() for name in names(query.values[0])}
    assert {name: where for name, where in asked.items() if name not in known} == {}


@pytest.mark.parametrize("query", list(queries()))
def test_every_query_asks_for_something(query: str) -> None:
    assert names(query)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    said = rule["annotations"]
    assert said["summary"]
    assert said["description"].endswith(".")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_leads_to_a_runbook(rule: dict[str, Any]) -> None:
    runbook = ROOT / rule["annotations"]["runbook"]
    assert runbook.parent == RUNBOOKS
    assert runbook.is_file()


def test_prometheus_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(FOLDER / "alerts.yaml")], check=True, capture_output=True)


def test_the_scrape_jobs_are_those_that_the_rules_name() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    named = {name for query in queries() for name in re.findall(r'job="([^"]+)"', query.values[0])}
    assert named <= jobs


def test_the_dashboard_can_be_imported_beside_any_data_source() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    for panel in DASHBOARD["panels"]:
        sources = [one["datasource"]["uid"] for one in (panel, *panel.get("targets", [])) if "datasource" in one]
        assert set(sources) <= {"${datasource}"}


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]
