"""Servers: read, and their metadata changed."""

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.events import read_events
from activities.control.find import find, find_host
from activities.control.views import server_view, server_views
from hostler.contract.calls import (
    LIST_EVENTS,
    LIST_SERVERS,
    SET_SERVER,
    SHOW_SERVER,
    Ref,
    ServerFilter,
    ServerMetadata,
)
from hostler.contract.servers import Server, ServerEvent
from hostler.contract.validation import check_metadata
from models import Database
from models import Server as Row


class ServerCalls:
    """What `hostler server list`, `show` and `events` answer with, and what `set` and `unset` do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=LIST_SERVERS.name)
    def list_servers(self, call: ServerFilter) -> list[Server]:
        """The servers that the filter lets through, oldest first."""
        query = select(Row).order_by(col(Row.created_at), col(Row.id))
        if not call.all_projects:
            query = query.where(Row.project == call.project)
        if not call.deleted:
            query = query.where(col(Row.deleted_at).is_(None))
        if call.name is not None:
            query = query.where(col(Row.name).contains(call.name, autoescape=True))
        with self._database.read() as session:
            if call.host is not None:
                query = query.where(Row.host_id == find_host(session, call.host).id)
            servers = server_views(session, session.exec(query).all())
        if call.status is not None:
            return [server for server in servers if server.status == call.status.upper()]
        return servers

    @activity.defn(name=SHOW_SERVER.name)
    def show_server(self, call: Ref) -> Server:
        """One server; a deleted one by UUID."""
        with self._database.read() as session:
            return server_view(session, _find(session, call))

    @activity.defn(name=SET_SERVER.name)
    def set_server(self, call: ServerMetadata) -> Server:
        """Change its metadata, key by key. They are no operation's, so it need not be idle.

        What it has stays, be it that a boot would refuse it by now.
        """
        changed = {key: value for key, value in call.metadata.items() if value is not None}

        def change(session: Session) -> Server:
            row = find(session, Row, call.ref, call.project, lock=True)
            metadata = call.applied(row.metadata_)
            check_metadata(changed, total=len(metadata))
            row.metadata_ = metadata
            return server_view(session, row)

        return self._database.run(change)

    @activity.defn(name=LIST_EVENTS.name)
    def list_events(self, call: Ref) -> list[ServerEvent]:
        """A server's history."""
        with self._database.read() as session:
            return read_events(session, _find(session, call).id)


def _find(session: Session, call: Ref) -> Row:
    row = session.get(Row, call.ref)
    return row if row is not None and row.project == call.project else find(session, Row, call.ref, call.project)
