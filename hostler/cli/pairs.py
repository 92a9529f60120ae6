"""Options whose value needs reading: `key=value` parts, properties, numbers, truths, durations."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from hostler.contract.errors import InvalidRequest
from hostler.settings import Duration

PropertyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        metavar="KEY=VALUE",
        help="Metadata, such as hostler:evacuate=true; repeat for more.",
    ),
]
KeyOption = Annotated[
    list[str] | None, typer.Option("--property", metavar="KEY", help="What to take away; repeat for more.")
]


def pairs(option: str, value: str, known: dict[str, str], *, bare: str | None = None) -> dict[str, str]:
    """Split `a=1,b=2`.

    Args:
        known: the keys that may be given, and what each is called in the result.
        bare: the key of a value that has no `=` at all.

    Raises:
        InvalidRequest: a part is no pair, or its key is unknown or repeated.
    """
    if bare is not None and "=" not in value:
        return {bare: value}
    found: dict[str, str] = {}
    for part in value.split(","):
        key, equals, content = part.partition("=")
        key = key.strip()
        if not equals or key not in known or known[key] in found:
            problem = "is given twice" if key in known and equals else "is not one of its key=value pairs"
            raise InvalidRequest(
                f"{option}: {part!r} {problem}",
                field=option,
                value=value,
                remedy=f"the keys are {', '.join(known)}",
            )
        found[known[key]] = content.strip()
    return found


def properties(values: list[str] | None) -> dict[str, str]:
    """The pairs of `PropertyOption`, keys as they are.

    Raises:
        InvalidRequest: a value has no `=`.
    """
    found = {}
    for value in values or []:
        key, equals, content = value.partition("=")
        if not equals:
            raise InvalidRequest(
                f"--property: {value!r} is not key=value",
                field="--property",
                value=value,
                remedy="write it like role=db",
            )
        found[key] = content
    return found


def changes(metadata: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """What a command shall change.

    Raises:
        InvalidRequest: it is nothing.
    """
    if not metadata:
        raise InvalidRequest("there is nothing to change", field="--property", remedy="give at least one --property")
    return metadata


def number(option: str, key: str, value: str) -> int:
    """An integer.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return int(value)
    except ValueError:
        raise InvalidRequest(f"{option}: {key} is not a number", field=option, value=value) from None


def truth(option: str, key: str, value: str) -> bool:
    """A boolean.

    Raises:
        InvalidRequest: it is neither true nor false.
    """
    if value.lower() not in ("true", "false"):
        raise InvalidRequest(f"{option}: {key} is true or false", field=option, value=value)
    return value.lower() == "true"


def duration(option: str, value: str | None) -> timedelta | None:
    """A duration as in the settings; None stays None.

    Raises:
        InvalidRequest: it is none.
    """
    if value is None:
        return None
    try:
        return TypeAdapter[timedelta](Duration).validate_python(value)
    except ValidationError:
        raise InvalidRequest(
            f"{option}: {value!r} is not a duration",
            field=option,
            value=value,
            remedy="give a number of seconds, or ISO 8601 such as PT20M",
        ) from None
