"""Judges the images: their rows against the files in the image store, and both against who imports them."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from activities.control.audit.facts import is_busy
from activities.control.audit.storage import NEVER
from activities.control.audit.suspecting import stray, suspect
from activities.interfaces.audit import Suspicion
from drivers.strays import SETTLED
from hostler.contract.audit import FindingKind
from hostler.contract.resources import ImageStatus, ImageType
from models import Image, Server, now


def judge_images(session: Session, stored: dict[str, datetime], strays: Sequence[str]) -> Iterator[Suspicion]:
    """Everything about images, of which these are `stored`, each last written to at its time."""
    images = {image.id: image for image in session.exec(select(Image))}
    shelved = set(session.exec(select(Server.shelved_image_id).where(col(Server.deleted_at).is_(None))).all())
    for image in images.values():
        if image.status is ImageStatus.SAVING:
            made_of = image.properties.get("instance_uuid")
            yield _stuck(image, session.get(Server, made_of) if made_of else None)
        elif image.id not in stored:
            yield _without_file(image)
        elif image.properties.get("image_type") == ImageType.SHELVED and image.id not in shelved:
            yield from _left_by_a_shelve(session, image)
    for image_id in stored.keys() - images.keys():
        if stored[image_id] < now() - SETTLED:
            yield _unknown(image_id)
    for path in strays:
        yield stray(path, "a file in the image store that is no image", "a control worker's machine")


def _stuck(image: Image, server: Server | None) -> Suspicion:
    if server is not None:
        return suspect(
            FindingKind.STUCK_IMAGE,
            image.id,
            f"image {image.name} is saving, and nothing makes it of its server",
            "active, or not there",
            server=server,
            reason="the server may be all that there is of it",
            remedy=f"hostler image delete {image.id}",
        )
    return suspect(
        FindingKind.STUCK_IMAGE,
        image.id,
        f"image {image.name} is saving, and nothing imports it",
        "imported, or not there",
        reason="its file may be complete: the database may be older than the import",
        remedy=_import(image.id, image.name, image.disk_format),
    )


def _left_by_a_shelve(session: Session, image: Image) -> Iterator[Suspicion]:
    """An image for the shelf of a server that is not there, and that no operation is just putting there."""
    made_of = image.properties.get("instance_uuid")
    server = session.get(Server, made_of) if made_of else None
    if server is None or not is_busy(server):
        yield suspect(
            FindingKind.STUCK_IMAGE,
            image.id,
            f"image {image.name} keeps the disk of a server that is not on the shelf",
            "not there",
            server=server,
            reason="it may be all that there is of that disk: the database may be older than the shelve's end",
            remedy=f"when its server has its guest, or is deleted: hostler image delete {image.id}",
        )


def _without_file(image: Image) -> Suspicion:
    return suspect(
        FindingKind.NO_IMAGE_DATA,
        image.id,
        f"image {image.name} is active, and its file is not in the store",
        f"its file, with SHA-256 {image.checksum}",
        reason="the store may not be mounted, or the database be older than the image's deletion",
        remedy=f"is the store mounted? Then hostler image delete {image.id}; to have it again, "
        + _import(image.id, image.name, image.disk_format),
    )


def _unknown(image_id: str) -> Suspicion:
    return suspect(
        FindingKind.UNKNOWN_IMAGE,
        image_id,
        "a file in the image store of an image that the database has never heard of",
        "not there, or a row",
        reason=NEVER,
        remedy=f"give it a row again, FILE being that file: {_import(image_id, 'NAME', 'FORMAT')}; "
        "see deploy/runbooks/leaked-thing.md",
    )


def _import(image_id: str, name: str, disk_format: str) -> str:
    """The command."""
    return f"hostler image create {name} --id {image_id} --disk-format {disk_format} --file FILE"
