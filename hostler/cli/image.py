"""`hostler image`."""

from pathlib import Path
from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.output import Columns, Format, FormatOption, column_option, note, show_list, show_one
from hostler.cli.session import session
from hostler.contract.resources import DiskFormat, Image

app = typer.Typer(no_args_is_help=True, help="Images that servers are made from.")

ImageArgument = Annotated[str, typer.Argument(metavar="IMAGE", help="Name or UUID.", autocompletion=names("images"))]
COLUMNS: Columns[Image] = {
    "ID": lambda i: i.id,
    "Name": lambda i: i.name,
    "Status": lambda i: i.status,
    "Format": lambda i: i.disk_format,
    "Size MiB": lambda i: f"{i.size_bytes / 2**20:.1f}",
    "Disk GiB": lambda i: f"{i.virtual_size_bytes / 2**30:.4g}",
    "Type": lambda i: i.properties.image_type,
    "Project": lambda i: i.project,
}
FIELDS: Columns[Image] = {
    **COLUMNS,
    "SHA-256": lambda i: i.checksum,
    "Min disk GiB": lambda i: i.min_disk_gib,
    "Min RAM MiB": lambda i: i.min_ram_mib,
    "Architecture": lambda i: i.properties.architecture,
    "Hypervisor": lambda i: i.properties.hypervisor_type,
    "Backup type": lambda i: i.properties.backup_type,
    "Server": lambda i: i.properties.instance_uuid,
    "Created": lambda i: i.created_at,
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    file: Annotated[Path, typer.Option(help="The file, as the control worker sees it.")],
    disk_format: Annotated[DiskFormat, typer.Option(help="What the file is; it is checked.")] = DiskFormat.QCOW2,
    checksum: Annotated[str | None, typer.Option(metavar="SHA256", help="What the file's sum must be.")] = None,
    min_disk: Annotated[int, typer.Option(metavar="GIB", help="Smallest disk that will do.")] = 0,
    min_ram: Annotated[int, typer.Option(metavar="MIB", help="Smallest memory that will do.")] = 0,
    architecture: Annotated[str | None, typer.Option(help="Only hosts of this one, such as x86_64.")] = None,
    hypervisor: Annotated[str | None, typer.Option(help="Only hosts of this one, such as qemu.")] = None,
    image_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its UUID.")] = None,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Import a file, and wait until it can be used."""
    image = session(ctx).run(
        lambda client: client.images.create(
            name,
            file.absolute(),
            disk_format=disk_format,
            checksum=checksum,
            min_disk_gib=min_disk,
            min_ram_mib=min_ram,
            architecture=architecture,
            hypervisor_type=hypervisor,
            image_id=image_id,
            on_note=lambda said: note(f"{name}: {said}"),
        )
    )
    show_one(image, FIELDS, format, columns)


@app.command("list")
def list_(
    ctx: typer.Context,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Of all projects.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """List images."""
    images = session(ctx).run(lambda client: client.images.list(all_projects=all_projects))
    show_list(images, FIELDS if columns else COLUMNS, format, columns)


@app.command()
def show(ctx: typer.Context, image: ImageArgument, format: FormatOption = Format.TABLE, columns: Picked = None) -> None:
    """Show an image."""
    show_one(session(ctx).run(lambda client: client.images.show(image)), FIELDS, format, columns)


@app.command()
def delete(ctx: typer.Context, image: ImageArgument) -> None:
    """Delete an image; servers made from it go on."""
    session(ctx).run(lambda client: client.images.delete(image))
