"""`hostler keypair`. Keys are made here; the private half never leaves this machine."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, note, show_list, show_one
from hostler.cli.session import session
from hostler.contract.errors import Conflict, InvalidRequest
from hostler.contract.resources import KeyPair
from hostler.contract.validation import check_keypair

app = typer.Typer(no_args_is_help=True, help="Public keys for servers.")

KeyPairArgument = Annotated[str, typer.Argument(metavar="KEYPAIR", help="Its name.", autocompletion=names("keypairs"))]
COLUMNS: Columns[KeyPair] = {
    "Name": lambda k: k.name,
    "Fingerprint": lambda k: k.fingerprint,
    "Type": lambda k: k.public_key.split(maxsplit=1)[0],
    "Project": lambda k: k.project,
}
FIELDS: Columns[KeyPair] = {**COLUMNS, "Public key": lambda k: k.public_key}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    public_key: Annotated[
        Path | None, typer.Option(help="A public key that you have; else a pair is made.", exists=True, dir_okay=False)
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option(help="Where a new private key goes; else NAME.pem, here.", dir_okay=False)
    ] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Store a public key, of a pair that you have or of a new one."""
    if public_key is not None:
        if private_key is not None:
            raise InvalidRequest("--private-key is for a new pair; leave out one of the two", field="--private-key")
        content, file = public_key.read_text(), None
    else:
        content, file = _generate(name, private_key)
    try:
        keypair = session(ctx).run(lambda client: client.keypairs.create(name, content))
    except BaseException:
        if file is not None:
            file.unlink()
        raise
    if file is not None:
        note(f"the private key is in {file}")
    show_one(keypair, FIELDS, format, columns)


@app.command("list")
def list_(ctx: typer.Context, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """List key pairs."""
    show_list(session(ctx).run(lambda client: client.keypairs.list()), FIELDS if columns else COLUMNS, format, columns)


@app.command()
def show(
    ctx: typer.Context, keypair: KeyPairArgument, format: FormatOption = Format.TABLE, columns: Picked = None
) -> None:
    """Show a key pair."""
    show_one(session(ctx).run(lambda client: client.keypairs.show(keypair)), FIELDS, format, columns)


@app.command()
def delete(ctx: typer.Context, keypair: KeyPairArgument) -> None:
    """Delete a key pair; servers that have it keep it."""
    session(ctx).run(lambda client: client.keypairs.delete(keypair))


def _generate(name: str, wanted: Path | None) -> tuple[str, Path]:
    """Make an Ed25519 pair; returns the public key and the private key's file."""
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise InvalidRequest(
                "ssh-keygen is not installed, so no pair can be made",
                remedy="install openssh-client, or give --public-key FILE",
            ) from None
        public = made.with_suffix(".pub").read_text()
        # Checked before its name becomes a file's.
        check_keypair(KeyPair(name=name, public_key=public.strip()))
        file = wanted or Path(f"{name}.pem")
        _write_secret(file, made.read_text())
    return public, file


def _write_secret(file: Path, content: str) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(content)
    except FileExistsError:
        raise Conflict(
            f"{file} exists, and a key is never overwritten", field="--private-key", remedy="give another file"
        ) from None
