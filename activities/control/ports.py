"""Ports: the source of MAC and fixed IP addresses."""

from functools import partial
from ipaddress import IPv4Address, IPv4Network
from uuid import NAMESPACE_URL, uuid5

from sqlmodel import Session, col, delete, select
from temporalio import activity

from activities.interfaces import ports as interface
from activities.interfaces.ports import AllocatePorts
from activities.interfaces.servers import ServerRef
from hostler.contract.errors import Conflict, InvalidRequest, NotFound
from hostler.contract.guests import PortBinding
from hostler.contract.servers import NetworkRequest
from hostler.contract.states import TaskState
from models import Database, Network, Port, Server
from models.network import free_vni

# Neutron's default range; its lowest half is what OpenStack clouds are known by.
MAC_PREFIX = "fa:16:3e"


class Ports(interface.Ports):
    """Owner of the port rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name="allocate_ports")
    def allocate_ports(self, call: AllocatePorts) -> list[PortBinding]:
        return self._database.run(partial(_allocate, call=call))

    @activity.defn(name="release_ports")
    def release_ports(self, call: ServerRef) -> None:
        self._database.run(lambda session: session.exec(delete(Port).where(col(Port.server_id) == call.server_id)))


def _allocate(session: Session, call: AllocatePorts) -> list[PortBinding]:
    server = session.get(Server, call.server_id, with_for_update=True)
    if server is not None and server.operation_id == call.run_id:
        server.task_state = TaskState.NETWORKING
    wanted = sorted({request.network for request in call.networks})  # locked in one order for all
    query = select(Network).where(col(Network.id).in_(wanted)).order_by(col(Network.id)).with_for_update()
    networks = {network.id: network for network in session.exec(query)}
    for network in networks.values():
        if network.vni is None:  # the version before made it, while this one ran already
            network.vni = free_vni(session, network.id)
    return [_port(session, call, networks, request, position) for position, request in enumerate(call.networks)]


def _port(
    session: Session, call: AllocatePorts, networks: dict[str, Network], request: NetworkRequest, position: int
) -> PortBinding:
    network = networks.get(request.network)
    if network is None:
        raise NotFound(
            f"network {request.network} is gone",
            field="network",
            value=request.network,
            remedy="see: hostler network list",
        )
    port_id = str(uuid5(NAMESPACE_URL, f"{call.server_id}/port/{position}"))
    port = session.get(Port, port_id)
    if port is None:
        port = Port(
            id=port_id,
            network_id=network.id,
            server_id=call.server_id,
            mac=_free_mac(session, port_id),
            ip=_free_address(session, network, request.fixed_ip),
            position=position,
        )
        session.add(port)
        session.flush()
    return binding(port, network, call.name)


def binding(port: Port, network: Network, hostname: str) -> PortBinding:
    """The port as its host is told of it."""
    return PortBinding(
        port_id=port.id,
        server_id=port.server_id,
        network_id=network.id,
        network=network.name,
        mac=port.mac,
        ip=port.ip,
        prefix=IPv4Network(network.cidr).prefixlen,
        gateway=network.gateway,
        dns=network.dns,
        mtu=network.mtu,
        vni=network.vni,
        hostname=hostname,
    )


def _free_mac(session: Session, port_id: str) -> str:
    """A MAC that follows from the port's UUID, or from its next hash where another port has that one."""
    candidate = port_id
    while True:
        candidate = uuid5(NAMESPACE_URL, candidate).hex
        mac = ":".join([MAC_PREFIX, candidate[0:2], candidate[2:4], candidate[4:6]])
        if session.exec(select(Port.id).where(Port.mac == mac)).first() is None:
            return mac


def _free_address(session: Session, network: Network, fixed_ip: str | None) -> str:
    subnet = IPv4Network(network.cidr)
    taken = set(session.exec(select(Port.ip).where(Port.network_id == network.id)).all()) | {network.gateway}
    if fixed_ip is not None:
        if IPv4Address(fixed_ip) not in subnet or fixed_ip in (
            str(subnet.network_address),
            str(subnet.broadcast_address),
        ):
            raise InvalidRequest(
                f"{fixed_ip} is no address for a server in network {network.name}, {network.cidr}",
                field="fixed_ip",
                value=fixed_ip,
                remedy="choose one inside the subnet",
            )
        if fixed_ip in taken:
            raise Conflict(
                f"{fixed_ip} is taken in network {network.name}",
                field="fixed_ip",
                value=fixed_ip,
                remedy="choose another, or none",
            )
        return fixed_ip
    for address in subnet.hosts():
        if str(address) not in taken:
            return str(address)
    raise Conflict(
        f"network {network.name}, {network.cidr}, has no free address",
        field="network",
        value=network.name,
        remedy="delete servers that are no longer needed, or use a larger network",
    )
