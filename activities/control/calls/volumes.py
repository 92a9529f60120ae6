"""Volumes, read; making and deleting one is a workflow."""

from sqlmodel import col, select
from temporalio import activity

from activities.control.find import find
from activities.control.views import host_names, volume_view
from hostler.contract.calls import LIST_VOLUMES, SHOW_VOLUME, Filter, Ref
from hostler.contract.resources import Volume
from models import Database
from models import Volume as Row


class VolumeCalls:
    """What `hostler volume list` and `show` answer with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=LIST_VOLUMES.name)
    def list_volumes(self, call: Filter) -> list[Volume]:
        """All of the project's, oldest first."""
        query = select(Row).order_by(col(Row.created_at), col(Row.id))
        if not call.all_projects:
            query = query.where(Row.project == call.project)
        with self._database.read() as session:
            rows = session.exec(query).all()
            hosts = host_names(session, {row.host_id for row in rows})
            return [volume_view(row, hosts.get(row.host_id or "")) for row in rows]

    @activity.defn(name=SHOW_VOLUME.name)
    def show_volume(self, call: Ref) -> Volume:
        """One."""
        with self._database.read() as session:
            row = find(session, Row, call.ref, call.project)
            return volume_view(row, host_names(session, {row.host_id}).get(row.host_id or ""))
