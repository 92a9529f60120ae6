"""The config drive of a guest that moves while it runs: the very bytes, for the guest may have it mounted.

libvirt copies no disk that is only read. One made anew has another content where the server's metadata have changed
since, lacks the password of a rebuild, and its files are elsewhere than the guest remembers.
"""

import base64
import logging
import zlib
from pathlib import Path

from drivers.hypervisor.libvirt.config_drive import PRIVATE
from hostler.contract.errors import RescheduleError

logger = logging.getLogger(__name__)

MOST_BYTES = 4 << 20
MOST_TEXT = 512 << 10
"""What goes through Temporal, which takes 2 MiB at a time; user data are of 48 KiB at most."""


def pack(file: Path) -> str | None:
    """The drive as text; None when there is none, or it is too large."""
    if not file.exists():
        return None
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    text = base64.b64encode(zlib.compress(content, level=9)).decode()
    if len(content) <= MOST_BYTES and len(text) <= MOST_TEXT:
        return text
    logger.warning("%s is too large to be carried to another host: it is made anew there", file)
    return None


def unpack(text: str, file: Path) -> None:
    """Write what another host has packed.

    Raises:
        RescheduleError: that is no such thing, or the file cannot be written.
    """
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
    except (ValueError, zlib.error) as error:
        raise _not_whole(str(error)) from error
    if not decompressor.eof:
        raise _not_whole(f"it ends early, or has more than {MOST_BYTES} bytes")
    try:
        file.touch(PRIVATE)  # the user data may hold passwords
        file.write_bytes(content)
    except OSError as error:
        raise RescheduleError(f"cannot write the config drive: {error}", remedy="see the host's disk") from error


def _not_whole(reason: str) -> RescheduleError:
    return RescheduleError(
        f"the guest's config drive cannot be taken over: {reason}",
        field="config_drive",
        remedy="see that both hosts run the same release, or migrate the guest powered off",
    )
