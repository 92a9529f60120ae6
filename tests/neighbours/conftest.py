"""Clouds in one process, for neighbours that are not processes."""

from tests.workflows.conftest import cloud, start_cloud

__all__ = ["cloud", "start_cloud"]
