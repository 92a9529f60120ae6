"""What all tables share: their naming and the column types that behave alike on SQLite and PostgreSQL."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, Enum, MetaData, String, Text
from sqlalchemy.orm import declared_attr
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel

# Constraints need names, or a migration could not change them later.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

Uuid = String(36)
"""A UUID in its canonical text form, readable in every database client."""

LongText = Text()
Json = JSON(none_as_null=True)
"""A JSON document. Assign a new one to change it: a change inside is not noticed."""


class Table(SQLModel):
    """The base of all tables; a table is named after its class, `BlockDevice` is `block_device`."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING)

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805 - it is a class method
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no time zone, so it is taken off and put on again here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database.

        Raises:
            ValueError: `value` has no time zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a datetime without a time zone: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def enumerated(cls: type[StrEnum]) -> Enum:
    """A column of `cls`, kept as plain text so that a new member needs no migration."""
    return Enum(cls, native_enum=False, length=32, values_callable=_values)


def _values(cls: Any) -> list[str]:
    return [member.value for member in cls]


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)
