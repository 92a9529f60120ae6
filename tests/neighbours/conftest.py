"""Clouds in one process, for neighbours that are not processes."""

from tests.workflows.conftest import cloud, disk, start_cloud, tables

__all__ = ["cloud", "disk", "start_cloud", "tables"]
