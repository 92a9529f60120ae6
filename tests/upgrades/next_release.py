"""The next release of Hostler: a copy of the source tree with what a release may change.

A step more in the boot, under `workflow.patched`; an activity of the control worker that the former one lacks; a field
more in what hosts are told; a column more in the database.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from models import head
from tests.processes.process import Process
from workers import dev

ROOT = Path(__file__).parents[2]
PACKAGES = ("hostler", "workflows", "activities", "scheduler", "drivers", "models", "workers")
STEP = "inspect_build"
FIELD = "colour"

NEW_FILES = {
    "activities/interfaces/inspection.py": f'''
from abc import ABC, abstractmethod
from temporalio import activity
from activities.interfaces.servers import ServerRef

class Inspection(ABC):
    @activity.defn(name="{STEP}")
    @abstractmethod
    def {STEP}(self, call: ServerRef) -> None: ...
''',
    "activities/control/inspection.py": f'''
from temporalio import activity
from activities.interfaces import inspection
from activities.interfaces.servers import ServerRef

class Inspection(inspection.Inspection):
    @activity.defn(name="{STEP}")
    def {STEP}(self, call: ServerRef) -> None:
        assert call.server_id
''',
    "workflows/inspection.py": f"""
from activities.interfaces.inspection import Inspection
from activities.interfaces.servers import ServerRef
from workflows.steps import StepDefinition

INSPECT = StepDefinition[ServerRef, None](Inspection.{STEP})
""",
    "models/migrations/versions/9999_next_release.py": f'''
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head()}", None, None

def upgrade() -> None:
    op.add_column("server", sa.Column("{FIELD}", sa.String(), nullable=True))
''',
}
# In which file, after or before what, is what: the former text, and what it becomes.
CHANGES = {
    "workflows/boot.py": [
        (r"(@workflow\.defn\(name=OperationName\.BOOT)", r"from workflows.inspection import INSPECT\n\n\n\1"),
        (
            r"(\n +return await self\.let_run\()",
            r'\n        if workflow.patched("inspect-build"):\n            await self.step(INSPECT, self.ref)\1',
        ),
    ],
    "workers/control.py": [
        (r"(\nlogger = )", r"\nfrom activities.control.inspection import Inspection\n\1"),
        (r"( +)(Hosts\(database\),\n)", r"\1\2\1Inspection(),\n"),
    ],
    "hostler/contract/guests.py": [
        (r'(class GuestSpec\(BaseModel\):\n    """.*?"""\n)', rf'\1\n    {FIELD}: str = "blue"'),
    ],
}


@dataclass(frozen=True)
class Release:
    """A source tree from which workers run."""

    tree: Path

    def environment(self) -> Mapping[str, str]:
        """What makes a program of ours run this release."""
        return {"PYTHONPATH": str(self.tree)}

    def of(self, process: Process, name: str) -> Process:
        """The same worker of this release, not started."""
        log = process.log.with_name(f"{name}.log")
        environment = {**process.environment, **self.environment()}
        return replace(process, name=name, log=log, environment=environment, starts=0, _child=None)

    def upgrade_database(self, control: Process) -> str:
        """`hostler db upgrade`, with the settings of a control worker; returns what it said."""
        return subprocess.run(
            dev.hostler("db", "upgrade"),
            env={**control.environment, **self.environment()},
            cwd=self.tree,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def make_next_release(tree: Path) -> Release:
    """Write it to `tree`."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in NEW_FILES.items():
        (tree / path).write_text(f'"""Of the next release."""\n{text}')
    for path, changes in CHANGES.items():
        source = (tree / path).read_text()
        for former, new in changes:
            source, found = re.subn(former, new, source, flags=re.DOTALL)
            assert found == 1, f"{path} has {former!r} {found} times"
        (tree / path).write_text(source)
    return Release(tree)
