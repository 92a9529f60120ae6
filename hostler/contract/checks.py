"""The small checks of which `hostler.contract.validation` is made."""

import ipaddress
from enum import StrEnum
from typing import NoReturn, TypeVar

from hostler.contract.errors import InvalidRequest
from hostler.contract.names import is_uuid

Word = TypeVar("Word", bound=StrEnum)

MAX_NAME = 255
MAX_INTEGER = 2**31 - 1
SHOWN = 80


def reject(field: str, value: object, message: str, remedy: str) -> NoReturn:
    """Raise `InvalidRequest`. The value comes from outside: it is shown cut short and with its controls escaped."""
    shown = repr(value) if isinstance(value, str) else str(value)
    if len(shown) > SHOWN:
        shown = f"{shown[:SHOWN]}…"
    raise InvalidRequest(f"{field}: {message}", field=field, value=None if value is None else shown, remedy=remedy)


def check_uuid(field: str, value: str | None) -> None:
    """A UUID in the one form by which it can be compared."""
    if value is None or not is_uuid(value):
        reject(
            field,
            value,
            "is not a UUID in its canonical form",
            "write it in lower case, like 1c0ffee0-0000-4000-8000-000000000000",
        )


def check_text(field: str, value: str, *, minimum: int = 1, maximum: int = MAX_NAME) -> None:
    """One printable line of `minimum` to `maximum` characters, with no blank at its ends."""
    if not minimum <= len(value) <= maximum:
        wanted = f"{minimum} to {maximum}" if minimum else f"at most {maximum}"
        reject(field, value, f"has {len(value)} characters, allowed are {wanted}", "choose another one")
    if not value.isprintable():
        reject(field, value, "has characters that cannot be printed", "use one line of printable text")
    if value != value.strip():
        reject(field, value, "begins or ends with a blank", "leave the blanks out")


def check_optional_text(field: str, value: str | None) -> None:
    """None, or what `check_text` allows."""
    if value is not None:
        check_text(field, value)


def check_number(field: str, value: int, *, minimum: int, maximum: int = MAX_INTEGER) -> None:
    """An integer from `minimum` to `maximum`."""
    if not minimum <= value <= maximum:
        reject(field, value, f"must be from {minimum} to {maximum}", "use a number in that range")


def check_word(field: str, value: str, words: type[Word]) -> Word:
    """The one of the `words` that `value` is."""
    try:
        return words(value)
    except ValueError:
        reject(field, value, "is not known", f"use one of: {', '.join(words)}")


def check_ipv4(field: str, value: str) -> ipaddress.IPv4Address:
    """The IPv4 address that `value` is."""
    try:
        return ipaddress.IPv4Address(value)
    except ValueError:
        reject(field, value, "is not an IPv4 address", "write four numbers with dots, like 10.0.0.7")
