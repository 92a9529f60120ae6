"""What belongs to a project: its quota and its key pairs."""

from dataclasses import asdict

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.find import find_keypair
from activities.control.views import keypair_view
from hostler.contract.calls import (
    CREATE_KEYPAIR,
    DELETE_KEYPAIR,
    LIST_KEYPAIRS,
    SET_QUOTA,
    SHOW_KEYPAIR,
    SHOW_QUOTA,
    Filter,
    Nothing,
    Ref,
)
from hostler.contract.errors import Conflict
from hostler.contract.public_keys import fingerprint
from hostler.contract.resources import KeyPair, Quota
from hostler.contract.validation import check_keypair, check_quota
from models import Database, lock_quota, quota_use
from models import KeyPair as Row

USE_PREFIX = "used_"


class QuotaCalls:
    """Owner of the limits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=SHOW_QUOTA.name)
    def show_quota(self, call: Filter) -> Quota:
        """The project's limits and use."""
        return self._database.run(lambda session: _view(session, call.project))

    @activity.defn(name=SET_QUOTA.name)
    def set_quota(self, call: Quota) -> Quota:
        """Set the limits; what is used beyond them stays."""
        check_quota(call)

        def change(session: Session) -> Quota:
            limits = {name: value for name, value in call.model_dump().items() if not name.startswith(USE_PREFIX)}
            lock_quota(session, call.project).sqlmodel_update(limits)
            session.flush()
            return _view(session, call.project)

        return self._database.run(change)


class KeyPairCalls:
    """Owner of the key pairs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=CREATE_KEYPAIR.name)
    def create_keypair(self, call: KeyPair) -> KeyPair:
        """Keep a public key; the same one again is no error."""
        check_keypair(call)
        wanted = call.model_copy(update={"fingerprint": fingerprint(call.public_key)})

        def change(session: Session) -> KeyPair:
            row = session.get(Row, (wanted.project, wanted.name))
            if row is None:
                session.add(Row(**wanted.model_dump()))
            elif keypair_view(row) != wanted:
                raise Conflict(
                    f"there is a key pair {wanted.name!r} already",
                    field="name",
                    value=wanted.name,
                    remedy="choose another name, or delete that one",
                )
            return wanted

        return self._database.run(change)

    @activity.defn(name=LIST_KEYPAIRS.name)
    def list_keypairs(self, call: Filter) -> list[KeyPair]:
        """All of the project's."""
        with self._database.read() as session:
            rows = session.exec(select(Row).where(Row.project == call.project).order_by(col(Row.name))).all()
            return [keypair_view(row) for row in rows]

    @activity.defn(name=SHOW_KEYPAIR.name)
    def show_keypair(self, call: Ref) -> KeyPair:
        """One."""
        with self._database.read() as session:
            return keypair_view(find_keypair(session, call.ref, call.project))

    @activity.defn(name=DELETE_KEYPAIR.name)
    def delete_keypair(self, call: Ref) -> Nothing:
        """Remove it; servers that have it keep it."""
        self._database.run(lambda session: session.delete(find_keypair(session, call.ref, call.project)))
        return Nothing()


def _view(session: Session, project: str) -> Quota:
    limits, use = lock_quota(session, project), quota_use(session, project)
    return Quota(**limits.model_dump(), **{f"{USE_PREFIX}{name}": value for name, value in asdict(use).items()})
