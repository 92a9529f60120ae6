"""Neighbouring releases understand each other: what a newer side adds to a message, an older one ignores."""

import importlib
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio import activity

import activities.interfaces
import hostler.contract
from tests.activities.test_registration import families


def promised() -> Iterator[Any]:
    """Every activity of every interface."""
    for family in families():
        for name in sorted(getattr(family, "__abstractmethods__", ())):
            yield pytest.param(getattr(family, name), id=name)


def types_of(method: Any) -> tuple[list[Any], Any]:
    """An activity's argument types, and its result's."""
    definition = activity._Definition.must_from_callable(method)
    return definition.arg_types or [], definition.ret_type


def messages() -> list[type[BaseModel]]:
    """Every model of the contract and of the activities' interfaces."""
    found = {}
    for package in (hostler.contract, activities.interfaces):
        for one in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(one.name)).values():
                if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
                    found[f"{value.__module__}.{value.__name__}"] = value
    return list(found.values())


@pytest.mark.parametrize("method", promised())
def test_an_activity_takes_one_model_to_which_fields_can_be_added(method: Any) -> None:
    arguments, _ = types_of(method)
    assert len(arguments) <= 1
    assert all(isinstance(one, type) and issubclass(one, BaseModel) for one in arguments)


@pytest.mark.parametrize("method", promised())
def test_its_result_is_a_model_or_bare_values(method: Any) -> None:
    _, result = types_of(method)
    parts = [*typing.get_args(result)] or [result]
    assert not any(typing.get_origin(part) is tuple for part in parts), "a tuple cannot grow"


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.__name__)
def test_what_is_unknown_is_ignored(message: type[BaseModel]) -> None:
    assert message.model_config.get("extra", "ignore") == "ignore"
    assert not message.model_config.get("strict", False)
