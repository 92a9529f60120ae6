"""Networks: rows only; a host makes the bridge when it binds the first port."""

from ipaddress import IPv4Network

from sqlmodel import Session, col, func, select
from temporalio import activity

from activities.control.find import find
from activities.control.views import network_view
from hostler.contract.calls import CREATE_NETWORK, DELETE_NETWORK, LIST_NETWORKS, SHOW_NETWORK, Filter, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.resources import Network
from hostler.contract.validation import check_network
from models import Database, Port
from models import Network as Row
from models.network import free_vni


class NetworkCalls:
    """Owner of the network rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=CREATE_NETWORK.name)
    def create_network(self, call: Network) -> Network:
        """Make it; the same one again is no error. Without a gateway it is the subnet's first address."""
        check_network(call)
        gateway = call.gateway or str(next(IPv4Network(call.cidr).hosts()))
        wanted = call.model_copy(update={"gateway": gateway, "ports": 0})

        def change(session: Session) -> Network:
            named = (Row.name == wanted.name) & (Row.project == wanted.project)
            for row in session.exec(select(Row).where((Row.id == wanted.id) | named)):
                if network_view(row, 0) != wanted:
                    raise Conflict(
                        f"there is a network {row.name!r} already",
                        field="name",
                        value=wanted.name,
                        remedy="choose another name, or delete that one",
                    )
                return wanted
            session.add(Row(**wanted.model_dump(exclude={"ports"}), vni=free_vni(session, wanted.id)))
            return wanted

        return self._database.run(change)

    @activity.defn(name=LIST_NETWORKS.name)
    def list_networks(self, call: Filter) -> list[Network]:
        """All of the project's, with the number of their ports."""
        ports = select(func.count()).where(Port.network_id == Row.id).scalar_subquery()
        query = select(Row, ports).order_by(col(Row.name))
        if not call.all_projects:
            query = query.where(Row.project == call.project)
        with self._database.read() as session:
            return [network_view(row, count) for row, count in session.exec(query).all()]

    @activity.defn(name=SHOW_NETWORK.name)
    def show_network(self, call: Ref) -> Network:
        """One."""
        with self._database.read() as session:
            row = find(session, Row, call.ref, call.project)
            return network_view(row, _ports(session, row))

    @activity.defn(name=DELETE_NETWORK.name)
    def delete_network(self, call: Ref) -> Nothing:
        """Remove it, unless servers are on it."""

        def change(session: Session) -> None:
            row = find(session, Row, call.ref, call.project)
            session.exec(select(Row.id).where(Row.id == row.id).with_for_update())
            if ports := _ports(session, row):
                raise Conflict(
                    f"network {row.name} has {ports} port(s)",
                    field="network",
                    value=call.ref,
                    remedy="delete the servers on it first",
                )
            session.delete(row)

        self._database.run(change)
        return Nothing()


def _ports(session: Session, row: Row) -> int:
    return session.exec(select(func.count()).where(Port.network_id == row.id)).one()
