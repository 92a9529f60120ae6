"""The cloud of real workers, for what the test peers are too small for."""

from tests.workflows.conftest import cloud, start_cloud

__all__ = ["cloud", "start_cloud"]
