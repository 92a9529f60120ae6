"""Which hosts are up, as the scheduler is told."""

from collections.abc import Callable

Alive = Callable[[], frozenset[str]]
"""The UUIDs of the hosts whose worker answers, at once and from any thread."""
