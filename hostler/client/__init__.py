"""The Python client."""

from hostler.client.client import Client
from hostler.client.host_work import HostWork
from hostler.client.operation import Operation

__all__ = ["Client", "HostWork", "Operation"]
