"""A simulated site for the tests of the matrix, on Temporal servers of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.__main__ import make_site
from tests.faults.servers import temporal_servers
from tests.faults.site import Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The site."""
    with (
        tempfile.TemporaryDirectory(prefix="hostler-faults-", ignore_cleanup_errors=True) as directory,
        temporal_servers() as servers,
    ):
        yield make_site("simulated", servers, Path(directory))
