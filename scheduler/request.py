"""What is asked of the scheduler."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulingRequest:
    """A server that needs a host. `host` is the name or UUID of the one asked for; `excluded` are UUIDs.

    Where `run_id` is given, nothing is reserved but for the run that holds the server.
    """

    server_id: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    zone: str | None = None
    host: str | None = None
    architecture: str | None = None
    hypervisor_type: str | None = None
    excluded: frozenset[str] = frozenset()
    run_id: str = ""
