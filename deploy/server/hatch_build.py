"""Build hook of the distribution hostler-server: takes its packages from the repository's root."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("workflows", "activities", "scheduler", "drivers", "models", "workers")


class CustomBuildHook(BuildHookInterface[Any]):
    """Includes the packages in a wheel, and nothing in an editable install, which would shadow the tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            repository = Path(self.root).parents[1]
            build_data["force_include"] = {str(repository / name): name for name in PACKAGES}
