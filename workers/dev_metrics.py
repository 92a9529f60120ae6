"""Where the workers of `hostler dev` serve their metrics: at the settings' ports, or at others that are free."""

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from hostler.settings import MetricsSettings, Settings
from workers.metrics import PATH, address
from workers.processes import Program
from workers.temporal_server import host_port

# Each worker's setting, and its port above Temporal's: clouds on one machine keep out of each other's way.
SETTINGS = {"control": "control_port", "host": "host_port", "simulated": "host_port"}
ABOVE_TEMPORAL = {"control": 2000, "host": 2001, "simulated": 2002}


def ports(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    """The port of each of these workers that serves metrics. One that is set to 0 serves none."""
    chosen: dict[str, int] = {}
    for name in (name for name in SETTINGS if name in names):
        setting = SETTINGS[name]
        wanted: int = getattr(settings.metrics, setting)
        if setting not in settings.metrics.model_fields_set or wanted in chosen.values():
            temporal = host_port(settings.temporal.address, 7233)[1]
            wanted = _free(settings.metrics, temporal + ABOVE_TEMPORAL[name], set(chosen.values()))
        if wanted:
            chosen[name] = wanted
    return chosen


def with_port(program: Program, chosen: Mapping[str, int]) -> Program:
    """The program, told its port."""
    if program.name not in SETTINGS:
        return program
    variable = f"HOSTLER_METRICS__{SETTINGS[program.name].upper()}"
    return replace(program, environment={**program.environment, variable: str(chosen.get(program.name, 0))})


def urls(settings: Settings, chosen: Mapping[str, int]) -> list[str]:
    """Where to scrape."""
    return [f"http://{address(settings.metrics, port)}{PATH}" for port in chosen.values()]


def _free(settings: MetricsSettings, wanted: int, taken: set[int]) -> int:
    for port in (wanted, 0):
        with (
            socket.socket(socket.AF_INET6 if ":" in settings.address else socket.AF_INET) as probe,
            suppress(OSError, OverflowError),
        ):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.address, port))
            free: int = probe.getsockname()[1]
            if free not in taken:
                return free
    return wanted
