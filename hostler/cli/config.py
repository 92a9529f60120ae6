"""`hostler config`."""

import json
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hostler.cli.output import printable
from hostler.cli.session import Session, session
from hostler.settings import DEFAULT_FILE, Settings

app = typer.Typer(no_args_is_help=True, help="The effective settings.")


class ConfigFormat(StrEnum):
    """How settings are printed."""

    TOML = "toml"
    JSON = "json"


@app.callback()
def config() -> None:
    """The effective settings."""


@app.command()
def show(
    ctx: typer.Context,
    format: Annotated[ConfigFormat, typer.Option("--format", "-f", help="How to print them.")] = ConfigFormat.TOML,
) -> None:
    """Show the effective settings, and where they come from; secrets are masked."""
    options = session(ctx)
    settings = options.settings()
    content = _effective(settings)
    if format is ConfigFormat.JSON:
        typer.echo(json.dumps({"sources": _sources(options), "settings": content}, indent=2))
        return
    for kind, source in _sources(options).items():
        typer.echo(f"# {kind}: {printable(str(source))}")
    typer.echo("\n".join(toml(content)))


def _effective(settings: Settings) -> dict[str, Any]:
    """What is in force, defaults that depend on others included."""
    content = settings.model_dump(mode="json")
    content["images"] = str(settings.images_dir)
    if settings.database.url is None:
        content["database"]["url"] = settings.database_url
    return content


def _sources(options: Session) -> dict[str, str]:
    file = options.config or Path(os.environ.get("HOSTLER_CONFIG", DEFAULT_FILE))
    variables = sorted(name for name in os.environ if name.startswith("HOSTLER_") and name != "HOSTLER_CONFIG")
    return {
        "file": str(file) if file.is_file() else f"none ({file} is not there)",
        "environment": ", ".join(variables) or "none",
        "flags": json.dumps(options.flags()) if options.flags() else "none",
    }


def toml(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """A table's lines: first its own values, then its sub-tables; None, which TOML lacks, is left out."""
    own = {key: value for key, value in table.items() if not _is_table(value) and value is not None}
    if path and own:
        yield f"\n[{path}]"
    for key, value in own.items():
        # JSON's notation of strings, numbers, booleans and lists is TOML's too.
        yield f"{_key(key)} = {json.dumps(value)}"
    for key, value in table.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            yield from toml(value, name)
        elif _is_table(value):
            for item in value:
                yield f"\n[[{name}]]"
                yield from toml(item)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)
