"""Moves of servers, read."""

from sqlmodel import Session, and_, col, or_, select
from sqlmodel.sql.expression import Select
from temporalio import activity

from activities.control.find import find, find_host
from activities.control.views import migration_views
from hostler.contract.calls import LIST_MIGRATIONS, MAX_MIGRATIONS, MigrationFilter
from hostler.contract.checks import check_number
from hostler.contract.errors import NotFound
from hostler.contract.servers import ServerMigration
from models import Database, Server
from models import Migration as Row

Listed = Select[Row, str, str]


class MigrationCalls:
    """What `hostler migration list` answers with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=LIST_MIGRATIONS.name)
    def list_migrations(self, call: MigrationFilter) -> list[ServerMigration]:
        """The moves that the filter lets through, the latest first; those of deleted servers too."""
        check_number("limit", call.limit, minimum=1, maximum=MAX_MIGRATIONS)
        query = select(Row, Server.name, Server.project).join(Server, col(Row.server_id) == col(Server.id))
        query = query.order_by(col(Row.created_at).desc(), col(Row.id).desc()).limit(call.limit)
        with self._database.read() as session:
            return migration_views(session, session.exec(_filtered(session, query, call)).all())


def _filtered(session: Session, query: Listed, call: MigrationFilter) -> Listed:
    if not call.all_projects:
        query = query.where(Server.project == call.project)
    if call.server is not None:
        query = query.where(Row.server_id == _server_id(session, call.server, call))
    if call.host is not None:
        host_id = find_host(session, call.host).id
        query = query.where(or_(col(Row.source_id) == host_id, col(Row.target_id) == host_id))
    if call.kind is not None:
        query = query.where(Row.kind == call.kind)
    if call.status is not None:
        query = query.where(Row.status == call.status)
    if call.after is not None:
        last, began = _last(session, call.after), col(Row.created_at)
        query = query.where(or_(began < last.created_at, and_(began == last.created_at, col(Row.id) < last.id)))
    return query


def _server_id(session: Session, ref: str, call: MigrationFilter) -> str:
    """The UUID of a server; a deleted one is found by it alone."""
    row = session.get(Server, ref.lower())
    if row is not None and (call.all_projects or row.project == call.project):
        return row.id
    return find(session, Server, ref, None if call.all_projects else call.project).id


def _last(session: Session, move_id: str) -> Row:
    """The move with which the part of the list before has ended.

    Raises:
        NotFound: there is none.
    """
    row = session.get(Row, move_id)
    if row is None:
        raise NotFound(f"no move {move_id!r}", field="after", value=move_id, remedy="list them from the first on")
    return row
