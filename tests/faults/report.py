"""The report: a page for people, and the same as JSON for programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.case import Result


def write(directory: Path, results: dict[str, list[Result]], seconds: float) -> Path:
    """Write both; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    cases = [_record(site, one) for site, all_of_it in results.items() for one in all_of_it]
    failed = sum(not case["passed"] for case in cases)
    content = {"seconds": round(seconds, 1), "cases": len(cases), "failed": failed, "results": cases}
    (directory / "faults.json").write_text(json.dumps(content, indent=1))
    return directory / "faults.html"


def _record(site: str, result: Result) -> dict[str, Any]:
    return {
        "site": site,
        "name": result.case.name,
        "operation": result.case.operation,
        "step": result.case.step,
        "fault": str(result.case.fault),
        "strikes": [asdict(strike) for strike in result.case.strikes],
        "passed": result.passed,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "problems": result.problems,
        "differences": result.differences,
        "history": result.history,
        "logs": result.logs,
    }
