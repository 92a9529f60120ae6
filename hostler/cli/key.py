"""`hostler key`: the encryption keys in this machine's key file. Nothing here talks to a cloud."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from hostler.cli.output import Columns, Format, FormatOption, note, show_list
from hostler.cli.session import session
from hostler.contract.errors import Conflict, InvalidRequest, NotFound

if TYPE_CHECKING:
    from hostler.encryption import Key

app = typer.Typer(no_args_is_help=True, help="Encryption keys.")


class ListedKey(BaseModel):
    """A key without its secret."""

    id: str
    encrypts: bool


COLUMNS: Columns[ListedKey] = {
    "ID": lambda key: key.id,
    "Use": lambda key: "encrypts and decrypts" if key.encrypts else "decrypts",
}


@app.callback()
def key() -> None:
    """The keys that encrypt what Temporal and the database keep, in this machine's key file."""


@app.command()
def create(
    ctx: typer.Context,
    id: Annotated[
        str | None, typer.Option("--id", help="Its public name; else today's date and a few letters.")
    ] = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print its line, which is secret, and leave the file alone.")
    ] = False,
) -> None:
    """Make a key. The first one of a file encrypts at once; a later one is added last, so that it only decrypts."""
    from hostler.encryption import Key

    new = Key.generate(id or f"{datetime.now(UTC):%Y-%m-%d}-{secrets.token_hex(2)}")
    if print_only:
        typer.echo(new.line)
        return
    file, keys = _file(ctx)
    if new.id in [one.id for one in keys]:
        raise Conflict(f"{file} has a key {new.id} already", field="--id", value=new.id, remedy="choose another ID")
    _write(file, [*keys, new])
    note(f"key {new.id} is in {file}")
    if keys:
        note(f"  give its line to every process that has the others, then: hostler key use {new.id}")


@app.command("list")
def list_(ctx: typer.Context, format: FormatOption = Format.TABLE) -> None:
    """List the IDs of the keys."""
    from hostler.encryption import load_keys

    keys = load_keys(session(ctx).settings())
    show_list([ListedKey(id=id, encrypts=id == keys.ids[0]) for id in keys.ids], COLUMNS, format, None)


@app.command()
def use(ctx: typer.Context, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Encrypt with this key from now on; every process must have it already. Running ones must be started again."""
    file, keys = _file(ctx)
    chosen = _find(file, keys, id)
    _write(file, [chosen, *(one for one in keys if one is not chosen)])


@app.command()
def delete(ctx: typer.Context, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Forget a key. What it encrypted can never be read again."""
    file, keys = _file(ctx)
    gone = _find(file, keys, id)
    if gone is keys[0]:
        raise Conflict(
            f"key {id} is the one that encrypts",
            field="ID",
            value=id,
            remedy="let another one encrypt first: hostler key use ID",
        )
    _write(file, [one for one in keys if one is not gone])


def _file(ctx: typer.Context) -> tuple[Path, list["Key"]]:
    """The key file, and what is in it; nothing where it is not there yet."""
    from hostler.encryption import keys_file, parse_keys
    from hostler.private_files import read_private

    settings = session(ctx).settings()
    if settings.encryption.keys is not None:
        raise InvalidRequest(
            "the keys are in the setting encryption.keys itself, which no command changes",
            field="encryption.keys",
            remedy="change it where it is set; `hostler key create --print` makes a line",
        )
    file = keys_file(settings)
    if not file.exists():
        return file, []
    return file, parse_keys(read_private(file, "encryption.keys_file"), "encryption.keys_file").all


def _find(file: Path, keys: Sequence["Key"], id: str) -> "Key":
    for one in keys:
        if one.id == id:
            return one
    raise NotFound(f"{file} has no key {id}", field="ID", value=id, remedy="see: hostler key list")


def _write(file: Path, keys: Sequence["Key"]) -> None:
    from hostler.private_files import write_private

    write_private(file, "".join(f"{one.line}\n" for one in keys))
