"""What commands print: tables for people; JSON and bare values for scripts."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Item = TypeVar("Item", bound=BaseModel)
Columns = Mapping[str, Callable[[Item], object]]

STYLES = {
    "ACTIVE": "green",
    "BUILD": "yellow",
    "REBOOT": "yellow",
    "HARD_REBOOT": "yellow",
    "REBUILD": "yellow",
    "RESIZE": "yellow",
    "REVERT_RESIZE": "yellow",
    "VERIFY_RESIZE": "bold yellow",
    "ERROR": "bold red",
    "SHUTOFF": "dim",
    "SHELVED": "dim",
    "SHELVED_OFFLOADED": "dim",
    "DELETED": "dim",
    "up": "green",
    "down": "bold red",
    "done": "green",
    "failed": "bold red",
}
# Wide enough for any table: what is no terminal is read by programs, which want a row on one line.
WIDE = 10_000


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    VALUE = "value"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print the result.")]


def column_option(columns: Columns[Any]) -> Any:
    """The option that picks some of `columns`; a wrong one is refused before anything is done."""
    titles = {key(title): title for title in columns}

    def check(picked: list[str] | None) -> list[str] | None:
        unknown = [name for name in picked or [] if key(name) not in titles]
        if unknown:
            raise typer.BadParameter(f"there is no {unknown[0]!r}, but {', '.join(columns)}")
        return [titles[key(name)] for name in picked or []] or None

    return typer.Option(
        "--column",
        "-c",
        metavar="NAME",
        callback=check,
        autocompletion=lambda incomplete: [name for name in titles if name.startswith(incomplete)],
        help="Print only this; repeat for more.",
    )


def console(*, stderr: bool = False) -> Console:
    """Standard output or standard error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE, highlight=False)


def note(message: str) -> None:
    """A word to whoever reads along; no part of the result."""
    console(stderr=True).print(Text(printable(message)))


def printable(text: str) -> str:
    """The text with its control characters escaped: names and messages may come from anywhere."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def cell(value: object) -> str:
    """A value as people read it; times in UTC, to the second."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case dict():
            return "\n".join(f"{k}={cell(v)}" for k, v in value.items()) or "-"
        case list() | tuple():
            return "\n".join(map(cell, value)) or "-"
    return printable(str(value)) or "-"


def show_list(items: Sequence[Item], columns: Columns[Item], format: Format, picked: list[str] | None) -> None:
    """Print things, one a line."""
    columns = _pick(columns, picked)
    match format:
        case Format.JSON:
            _print_json([_content(item, columns if picked else None) for item in items])
        case Format.VALUE:
            for item in items:
                print(" ".join(_value(get(item)) for get in columns.values()))
        case Format.TABLE:
            console().print(table(list(columns), [[get(item) for get in columns.values()] for item in items]))


def show_one(item: Item, fields: Columns[Item], format: Format, picked: list[str] | None) -> None:
    """Print one thing, a field a line."""
    fields = _pick(fields, picked)
    match format:
        case Format.JSON:
            _print_json(_content(item, fields if picked else None))
        case Format.VALUE:
            for get in fields.values():
                print(_value(get(item)))
        case Format.TABLE:
            console().print(table(["Field", "Value"], [[title, get(item)] for title, get in fields.items()]))


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table as all commands draw it."""
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for title in titles:
        grid.add_column(title, overflow="fold", no_wrap=title == "ID")
    for row in rows:
        texts = map(cell, row)
        grid.add_row(*(Text(text, style=STYLES.get(text, "")) for text in texts))
    return grid


def key(title: str) -> str:
    """A column's title as it may be typed."""
    return title.lower().replace(" ", "_")


def _pick(columns: Columns[Item], picked: list[str] | None) -> Columns[Item]:
    return {title: columns[title] for title in picked} if picked else columns


def _value(value: object) -> str:
    return cell(value).replace("\n", ",")


def _content(item: Item, columns: Columns[Item] | None) -> object:
    if columns is None:
        return item.model_dump(mode="json")
    return {title: get(item) for title, get in columns.items()}


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))
