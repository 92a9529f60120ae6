"""A simulated site for the tests of the matrix, on a Temporal server of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port, run_temporal
from tests.faults.__main__ import SERVER_FLAGS, make_site
from tests.faults.site import Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The site."""
    with (
        tempfile.TemporaryDirectory(prefix="hostler-faults-", ignore_cleanup_errors=True) as directory,
        run_temporal(free_port(), *SERVER_FLAGS) as address,
    ):
        yield make_site("simulated", address, Path(directory))
