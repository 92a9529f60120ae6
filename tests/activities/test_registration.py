"""Every activity that an interface promises is there, once, under the name of its method."""

import importlib
import inspect
import pkgutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client

import activities.interfaces
import models
from drivers.volume.local import LocalVolumes
from hostler.settings import HostSettings, Settings, SimulatedSettings
from workers.activities import methods
from workers.control import control_activities
from workers.machine import make_machines


def families() -> list[type]:
    """The interfaces."""
    modules = [
        importlib.import_module(f"activities.interfaces.{one.name}")
        for one in pkgutil.iter_modules(activities.interfaces.__path__)
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and inspect.isabstract(value) and value.__module__ == module.__name__
    ]


def name_of(method: Any) -> str:
    """An activity's name on the wire."""
    definition = activity._Definition.must_from_callable(method)
    assert definition.name is not None
    return definition.name


@pytest.fixture
async def registered(tmp_path: Path) -> list[Any]:
    """What the two workers register."""
    simulated = HostSettings(driver="simulated", simulated=SimulatedSettings(hosts=1))
    settings = Settings(state_dir=tmp_path, host=simulated)
    [machine] = await make_machines(settings)
    client = await Client.connect("127.0.0.1:1", lazy=True)
    control = control_activities(client, settings, models.Database(settings.database_url), frozenset)
    machine.volumes = LocalVolumes(tmp_path / "volumes", "127.0.0.1")
    return [*control, *machine.activities()]


def test_there_are_interfaces() -> None:
    assert {family.__name__ for family in families()} >= {"Servers", "Guests", "HostVolumes"}


@pytest.mark.parametrize("family", families(), ids=lambda family: family.__name__)
def test_an_activity_is_named_after_its_method(family: type) -> None:
    abstract: frozenset[str] = getattr(family, "__abstractmethods__", frozenset())
    assert {name_of(getattr(family, name)) for name in abstract} == set(abstract)


async def test_each_is_registered_once(registered: list[Any]) -> None:
    counted = Counter(name_of(method) for method in registered)
    promised = {name for family in families() for name in getattr(family, "__abstractmethods__", ())}
    assert promised <= set(counted)
    assert set(counted.values()) == {1}


async def test_each_is_registered_under_the_name_of_its_method(registered: list[Any]) -> None:
    assert [name_of(method) for method in registered] == [method.__name__ for method in registered]


def test_only_activities_are_found_in_a_family() -> None:
    class Family:
        @activity.defn
        async def one(self) -> None: ...

        async def other(self) -> None: ...

    assert [method.__name__ for method in methods(Family())] == ["one"]
