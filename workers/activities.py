"""Finds the activities of a family: every public method that is defined as one."""

from collections.abc import Callable
from typing import Any

DEFINITION = "__temporal_activity_definition"


def methods(family: object) -> list[Callable[..., Any]]:
    """The bound activity methods of an object."""
    found = [getattr(family, name) for name in dir(type(family)) if not name.startswith("_")]
    return [method for method in found if hasattr(method, DEFINITION)]
