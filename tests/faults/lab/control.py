"""The lab's control plane with the faults in it: `python -m tests.faults.lab.control DIRECTORY`, until SIGTERM."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import deploy.lab.control
from deploy.lab.site import Site
from workers import dev

BOOK = "faults"
"""The directory in which those who strike and those who are struck write, beside what else each has on its disk."""


def main() -> None:
    """The program."""
    site = Site.load(Path(sys.argv[1]))
    plan = dev.plan

    def with_faults(*arguments: Any, **options: Any) -> dev.Plan:
        made = plan(*arguments, **options)
        command = [sys.executable, "-m", "tests.faults.lab.worker", "control", str(site.directory / BOOK)]
        changes: Mapping[str, Any] = {"command": command}
        workers = [replace(one, **changes) if one.name == "control" else one for one in made.workers]
        return replace(made, workers=workers)

    dev.plan = with_faults
    deploy.lab.control.run(site)


if __name__ == "__main__":
    main()
