"""The cloud of real workers, for what the test peers are too small for."""

from tests.workflows.conftest import cloud as cloud
from tests.workflows.conftest import disk as disk
from tests.workflows.conftest import start_cloud as start_cloud
from tests.workflows.conftest import tables as tables
