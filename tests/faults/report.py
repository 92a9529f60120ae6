"""The report: one page for people, and the same as JSON for programs."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from tests.faults.case import Result
from tests.faults.matrix import RETREAT, UNDO, UNDO_NAMES
from tests.faults.plan import MEANING, OF_UNDOS, Fault

PAGE, DATA = "faults.html", "faults.json"
NAMES = {fault: UNDO_NAMES.get(fault, str(fault)) for fault in OF_UNDOS}
MEANINGS = {str(fault): text for fault, text in MEANING.items()} | {
    name: MEANING[fault] for fault, name in NAMES.items()
}


def write(directory: Path, results: dict[str, list[Result]], seconds: float) -> Path:
    """Write both for the results of each site; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    cases = [_record(site, one) for site, all_of_it in results.items() for one in all_of_it]
    summary = {
        "cases": len(cases),
        "failed": [f"{case['site']}: {case['name']}" for case in cases if not case["passed"]],
        "seconds": round(seconds, 1),
    }
    (directory / DATA).write_text(json.dumps(summary | {"results": cases}, indent=1))
    page = directory / PAGE
    page.write_text(render(cases, seconds))
    return page


def render(cases: Sequence[dict[str, Any]], seconds: float) -> str:
    """The page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(
        cases=cases,
        total=len(cases),
        failed=[case for case in cases if not case["passed"]],
        operations=len({case["operation"] for case in cases}),
        steps=len({(case["operation"], case["step"]) for case in cases if case["step"]}),
        duration=f"{int(seconds) // 60}:{int(seconds) % 60:02}",
        tables=list(_tables(cases)),
        faults=[{"name": name, "meaning": meaning} for name, meaning in MEANINGS.items()],
    )


def _record(site: str, result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "site": site,
        "name": case.name,
        "anchor": re.sub(r"[^a-z0-9]+", "-", f"{site}-{case.name}".lower()),
        "operation": case.operation,
        "step": case.step,
        "fault": str(case.fault),
        "meaning": MEANINGS.get(str(case.fault), ""),
        "strikes": [asdict(strike) for strike in case.strikes],
        "passed": result.passed,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "problems": result.problems,
        "differences": result.differences,
        "history": result.history,
        "logs": result.logs,
    }


def _tables(cases: Sequence[dict[str, Any]]) -> Any:
    """For each site one of steps and one of undos: operations, in them steps, in them a cell a fault."""
    for site in dict.fromkeys(case["site"] for case in cases):
        for undos in (False, True):
            rows = [
                case
                for case in cases
                if case["site"] == site and case["step"].startswith((UNDO, RETREAT)) == undos and case["step"]
            ]
            if not rows:
                continue
            wanted = list(NAMES.values()) if undos else [str(fault) for fault in Fault]
            names = [name for name in wanted if any(case["fault"] == name for case in rows)]
            yield {
                "title": f"{'Undos' if undos else 'Steps'}, {site}",
                "faults": [{"name": name, "meaning": MEANINGS[name]} for name in names],
                "operations": [
                    (operation, _rows([case for case in rows if case["operation"] == operation], names))
                    for operation in dict.fromkeys(case["operation"] for case in rows)
                ],
            }


def _rows(cases: Sequence[dict[str, Any]], names: Sequence[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    return [
        (step, [next((c for c in cases if (c["step"], c["fault"]) == (step, name)), None) for name in names])
        for step in dict.fromkeys(case["step"] for case in cases)
    ]
