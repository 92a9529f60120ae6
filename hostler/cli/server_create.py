"""`hostler server create`."""

from pathlib import Path
from typing import Annotated

import typer

from hostler.cli.boot_options import block_device, boot_volume, ephemeral, network, new_boot_volume, swap, with_ids
from hostler.cli.completion import names
from hostler.cli.failures import fail
from hostler.cli.operating import OnFailureOption
from hostler.cli.output import Format, FormatOption, column_option, note
from hostler.cli.pairs import PropertyOption, properties
from hostler.cli.server_views import FIELDS, show_server
from hostler.cli.session import session
from hostler.cli.watching import watch
from hostler.client import Client, Operation
from hostler.contract.errors import HostlerError, InvalidRequest
from hostler.contract.servers import Server


def create(
    ctx: typer.Context,
    name: str,
    flavor: Annotated[str, typer.Option(help="Name or UUID.", autocompletion=names("flavors"))],
    image: Annotated[str | None, typer.Option(help="Name or UUID.", autocompletion=names("images"))] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            "--nic",
            metavar="NET",
            help="Name or UUID, or net=NET,ip=ADDRESS; repeat for more interfaces.",
            autocompletion=names("networks"),
        ),
    ] = None,
    volume: Annotated[str | None, typer.Option(help="Boot from this volume.", autocompletion=names("volumes"))] = None,
    boot_from_volume: Annotated[
        int | None, typer.Option(metavar="GIB", help="Boot from a new volume of this size, made from the image.")
    ] = None,
    block_devices: Annotated[
        list[str] | None,
        typer.Option(
            "--block-device",
            metavar="KEY=VALUE,...",
            help="uuid, source_type (volume, image, blank), destination_type (volume, local), volume_size in GiB, "
            "boot_index, guest_format (swap), delete_on_termination; repeat for more.",
        ),
    ] = None,
    ephemerals: Annotated[
        list[str] | None, typer.Option("--ephemeral", metavar="[size=]GIB", help="A blank local disk; repeatable.")
    ] = None,
    swap_mib: Annotated[int | None, typer.Option("--swap", metavar="MIB", help="A swap disk.")] = None,
    key_name: Annotated[str | None, typer.Option(help="Key pair.", autocompletion=names("keypairs"))] = None,
    user_data: Annotated[
        Path | None, typer.Option(help="File for the guest, for cloud-init.", exists=True, dir_okay=False)
    ] = None,
    property: PropertyOption = None,
    availability_zone: Annotated[str | None, typer.Option(help="Only hosts of this zone.")] = None,
    host: Annotated[str | None, typer.Option(help="Only this host.", autocompletion=names("hosts"))] = None,
    server_id: Annotated[
        str | None, typer.Option("--id", metavar="UUID", help="Its UUID; creating it twice creates it once.")
    ] = None,
    config_drive: Annotated[bool, typer.Option(help="Give the guest its metadata on a config drive.")] = True,
    max_attempts: Annotated[int | None, typer.Option(help="On how many hosts to try, at most.")] = None,
    on_failure: OnFailureOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it is built.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Annotated[list[str] | None, column_option(FIELDS)] = None,
) -> None:
    """Build a server."""
    devices = [block_device(value) for value in block_devices or []]
    devices += [ephemeral(value) for value in ephemerals or []]
    if swap_mib is not None:
        devices.append(swap(swap_mib))
    if volume is not None:
        devices.insert(0, boot_volume(volume))
    root_image = image
    if boot_from_volume is not None:
        if image is None:
            raise InvalidRequest("--boot-from-volume needs --image, whose content the volume gets", field="image")
        devices.insert(0, new_boot_volume(image, boot_from_volume))
        root_image = None

    async def boot(client: Client) -> Operation:
        return await client.servers.boot(
            name,
            flavor=flavor,
            image=root_image,
            networks=[network(value) for value in networks or []],
            block_devices=[await with_ids(client, device) for device in devices],
            key_name=key_name,
            user_data=user_data.read_bytes() if user_data else None,
            metadata=properties(property),
            availability_zone=availability_zone,
            host=host,
            config_drive=config_drive,
            max_attempts=max_attempts,
            on_failure=on_failure,
            server_id=server_id,
        )

    async def work(client: Client) -> Server | HostlerError:
        operation = await boot(client)
        if wait:
            outcome = (await watch({name: operation}))[name]
            if isinstance(outcome, HostlerError):
                note(f"server {operation.server_id} was not built; delete it when you have seen why")
            return outcome
        return await client.servers.show(operation.server_id)

    built = session(ctx).run(work)
    if isinstance(built, HostlerError):
        fail([], [built])
    show_server(built, format, columns)
