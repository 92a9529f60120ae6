"""A database with a small catalogue, SQLite and then PostgreSQL."""

import pytest

from activities.control.servers import Servers
from hostler.settings import Settings
from models import Database
from tests.activities.given import fill_catalogue


@pytest.fixture
def catalogue(database: Database) -> Database:
    """The database with a flavor, an image and a network."""
    fill_catalogue(database)
    return database


@pytest.fixture
def servers(catalogue: Database) -> Servers:
    """The activities on servers."""
    return Servers(catalogue, Settings())
