"""Finds things by name or UUID, and says what there is when there is no such thing."""

from typing import TypeVar

from sqlmodel import Session, col, or_, select

from hostler.contract.errors import Conflict, InvalidRequest, NotFound
from models import Flavor, Host, Image, KeyPair, Network, Server, Volume

Row = TypeVar("Row", Server, Volume, Image, Network)

KINDS: dict[type, str] = {Server: "server", Volume: "volume", Image: "image", Network: "network"}


def find(session: Session, table: type[Row], ref: str, project: str | None, *, lock: bool = False) -> Row:
    """The one thing of the project (None: of any) with this UUID, else with this name; locked, where it is to be
    changed.

    Raises:
        NotFound: there is none.
        Conflict: the name is not unique.
    """
    kind = KINDS[table]
    query = select(table)
    if project is not None:
        query = query.where(table.project == project)
    if table is Server:
        query = query.where(col(Server.deleted_at).is_(None))
    query = query.where(or_(col(table.id) == ref, col(table.name) == ref))
    rows = session.exec(query.with_for_update() if lock else query).all()
    for row in rows:
        if row.id == ref:
            return row
    if len(rows) > 1:
        raise Conflict(
            f"{len(rows)} {kind}s are called {ref!r}",
            field=kind,
            value=ref,
            remedy="name it by UUID: " + ", ".join(sorted(row.id for row in rows)[:10]),
        )
    if not rows:
        where = "any project" if project is None else f"project {project}"
        raise NotFound(f"no {kind} {ref!r} in {where}", field=kind, value=ref, remedy=f"see: hostler {kind} list")
    return rows[0]


def find_flavor(session: Session, ref: str) -> Flavor:
    """The flavor with this UUID or name.

    Raises:
        NotFound: there is none.
    """
    flavor = session.exec(select(Flavor).where(or_(col(Flavor.id) == ref, col(Flavor.name) == ref))).first()
    if flavor is None:
        raise NotFound(f"no flavor {ref!r}", field="flavor", value=ref, remedy="see: hostler flavor list")
    return flavor


def find_host(session: Session, ref: str) -> Host:
    """The host with this UUID, else with this label.

    Raises:
        NotFound: there is none.
        Conflict: two hosts carry the label.
    """
    rows = session.exec(select(Host).where(or_(col(Host.id) == ref, col(Host.name) == ref))).all()
    if not rows:
        raise NotFound(f"no host {ref!r}", field="host", value=ref, remedy="see: hostler host list")
    if len(rows) > 1:
        ids = ", ".join(sorted(row.id for row in rows))
        raise Conflict(f"several hosts are called {ref!r}", field="host", value=ref, remedy=f"name it by UUID: {ids}")
    return rows[0]


def find_keypair(session: Session, name: str, project: str) -> KeyPair:
    """The project's key pair of this name.

    Raises:
        NotFound: there is none.
    """
    keypair = session.get(KeyPair, (project, name))
    if keypair is None:
        raise NotFound(
            f"no key pair {name!r} in project {project}",
            field="key_name",
            value=name,
            remedy="see: hostler keypair list",
        )
    return keypair


def check_zone(session: Session, zone: str | None) -> None:
    """A zone exists when a host is in it.

    Raises:
        InvalidRequest: no host is.
    """
    if zone is None:
        return
    zones = session.exec(select(Host.zone).distinct()).all()
    if zone not in zones:
        known = ", ".join(sorted(zones)) or "none, as no host has registered"
        raise InvalidRequest(
            f"no availability zone {zone!r}", field="availability_zone", value=zone, remedy=f"there is: {known}"
        )
