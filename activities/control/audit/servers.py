"""Judges the servers of a host, and what the host has of servers that are not its own."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from activities.control.audit.facts import Facts, is_busy
from activities.control.audit.suspecting import remedy_without_host, suspect
from activities.interfaces.audit import Evidence, Suspicion
from activities.interfaces.holdings import GuestHolding, Holdings
from activities.interfaces.servers import HostRef
from hostler.contract.audit import FindingKind
from hostler.contract.states import PowerState, VmState, status
from models import Server

FOLLOWED = {
    (VmState.ACTIVE, PowerState.SHUTDOWN): VmState.STOPPED,
    (VmState.STOPPED, PowerState.RUNNING): VmState.ACTIVE,
}
"""An idle server's state and its guest's: the state that the server gets."""
AGREEING = {
    (VmState.ACTIVE, PowerState.RUNNING),
    (VmState.STOPPED, PowerState.SHUTDOWN),
    (VmState.RESIZED, PowerState.RUNNING),
    (VmState.RESIZED, PowerState.SHUTDOWN),
    (VmState.SHELVED, PowerState.SHUTDOWN),
}


@dataclass
class Part:
    """All that a host has of one server."""

    guest: GuestHolding | None = None
    claim: bool = False
    former: bool = False
    allocation: bool = False
    ports: list[str] = field(default_factory=list)

    def evidence(self) -> Evidence:
        """What a suspicion about it rests on."""
        return Evidence(
            guest=self.guest is not None,
            power_state=self.guest.power_state if self.guest else None,
            claim=self.claim,
            former=self.former,
            allocation=self.allocation,
            ports=sorted(self.ports),
        )

    def __str__(self) -> str:
        words = [f"a guest ({self.guest.power_state})"] if self.guest else []
        words += ["a claim"] * self.claim + ["a former guest or claim"] * self.former
        words += ["an allocation"] * self.allocation
        words += [f"bound port {port}" for port in sorted(self.ports)]
        return ", ".join(words) or "nothing"


def parts(host: HostRef, holdings: Holdings, facts: Facts) -> dict[str, Part]:
    """What there is on the host, by server. Allocations are the scheduler's book of the same host."""
    found: dict[str, Part] = defaultdict(Part)
    for guest in holdings.guests:
        found[guest.server_id].guest = guest
    for server_id in holdings.claims:
        found[server_id].claim = True
    for server_id in holdings.formers:
        if server_id not in facts.left:
            found[server_id].former = True
    for port in holdings.ports:
        server = facts.servers.get(port.server_id)
        if port.server_id not in facts.left or (server is not None and server.host_id == host.id):
            found[port.server_id].ports.append(port.port_id)
    for server_id, hosts in facts.allocated.items():
        if host.id in hosts:
            found[server_id].allocation = True
    return found


def judge_servers(host: HostRef, holdings: Holdings, facts: Facts) -> Iterator[Suspicion]:
    """Everything about servers on this host."""
    found = parts(host, holdings, facts)
    for server in facts.servers.values():
        if server.deleted_at is None and server.host_id == host.id:
            yield from _own(host, server, found.get(server.id, Part()), facts)
    for server_id, part in found.items():
        known = facts.servers.get(server_id)
        if known is None:
            yield _stranger(host, server_id, part)
        elif known.host_id != host.id and not is_busy(known) and server_id not in facts.owed:
            yield _remains(host, known, part, facts)


# Servers that live here.


def _own(host: HostRef, server: Server, part: Part, facts: Facts) -> Iterator[Suspicion]:
    if is_busy(server):
        yield lost_operation(server, host, part.evidence())
        return
    if part.former and server.id not in facts.owed:
        yield _remains(host, server, Part(former=True), facts)
    if part.guest is None:
        yield suspect(
            FindingKind.NO_GUEST,
            server.id,
            f"{status(server.vm_state, None)}, and its host has no guest of it",
            "a guest",
            server=server,
            host=host,
            reason="a guest cannot be made again from nothing",
            remedy=f"hostler server delete {server.id}",
        )
    else:
        yield from _power(host, server, part)
    if not part.claim:
        yield suspect(
            FindingKind.NO_CLAIM,
            server.id,
            "the host keeps no claim for it",
            "a claim",
            server=server,
            host=host,
            reason="the host may promise the same memory twice",
            remedy=f"hostler host disable {host.id} --reason 'a claim is missing'",
        )
    if not part.allocation:
        yield suspect(
            FindingKind.NO_ALLOCATION,
            server.id,
            "the scheduler does not count it on its host",
            "an allocation",
            server=server,
            host=host,
            reason="the scheduler may place too much there",
            remedy=f"hostler host disable {host.id} --reason 'an allocation is missing'",
        )
    yield from _ports(host, server, part, facts)


def _power(host: HostRef, server: Server, part: Part) -> Iterator[Suspicion]:
    assert part.guest is not None
    state, power = server.vm_state, part.guest.power_state
    agree = (state, power) in AGREEING or state is VmState.ERROR
    if agree and power is server.power_state:
        return
    follows = FOLLOWED.get((state, power), state)
    safe = agree or follows is not state
    yield suspect(
        FindingKind.POWER_STATE,
        server.id,
        f"{status(state, None)} (power state {server.power_state}), and its guest is {power}",
        f"{status(follows, None)}, {power}" if safe else f"a guest that fits {status(state, None)}",
        server=server,
        host=host,
        safe=safe,
        reason="" if safe else "no state of a server says that",
        remedy="" if safe else f"hostler server reboot --hard {server.id}",
        evidence=part.evidence(),
    )


def _ports(host: HostRef, server: Server, part: Part, facts: Facts) -> Iterator[Suspicion]:
    own = {port.id for port in facts.of(server)}
    for port_id in sorted(own - set(part.ports)):
        yield suspect(
            FindingKind.UNBOUND_PORT,
            port_id,
            f"port {port_id} is not bound on the server's host",
            "bridge, DHCP entry and NAT for it",
            server=server,
            host=host,
            reason="what took it away is not known",
            remedy=f"hostler server delete {server.id}",
        )
    for port_id in sorted(set(part.ports) - own):
        yield suspect(
            FindingKind.REMAINS,
            port_id,
            f"port {port_id} is bound, which the server does not have",
            "not there",
            server=server,
            host=host,
            reason="the guest may use it: the database may be older than the port",
            remedy=f"hostler server show {server.id}",
        )


def lost_operation(server: Server, host: HostRef | None, evidence: Evidence | None = None) -> Suspicion:
    """A row that a run holds: wrong only when that run is not open, which is asked later."""
    holder = f"run {server.operation_id}" if server.operation_id else "no run"
    return suspect(
        FindingKind.LOST_OPERATION,
        server.id,
        f"{status(server.vm_state, server.task_state)}, {server.task_state or 'no task'}: "
        f"held by {holder}, and no operation runs",
        "held by an operation that runs, or by none",
        server=server,
        host=host,
        safe=True,
        remedy=f"hostler audit --heal --host {host.id}" if host else "hostler audit --heal",
        evidence=evidence,
    )


# What is here of others.


def _stranger(host: HostRef, server_id: str, part: Part) -> Suspicion:
    return suspect(
        FindingKind.UNKNOWN_SERVER,
        server_id,
        f"{part} of a server that the database has never heard of",
        "not there, or a row",
        host=host,
        reason="it may be somebody's: the database may be older than the server, or the machine may be shared",
        remedy="see deploy/runbooks/leaked-thing.md and database-restored.md",
        evidence=part.evidence(),
    )


def _remains(host: HostRef, server: Server, part: Part, facts: Facts) -> Suspicion:
    if part.guest is not None and part.guest.host_id != host.id:
        spawned = f"by host {part.guest.host_id}" if part.guest.host_id else "its record does not say where"
        return suspect(
            FindingKind.FOREIGN_GUEST,
            server.id,
            f"{part}; the guest was spawned {spawned}",
            "not there",
            server=server,
            host=host,
            reason="this host did not spawn it, so it is not this host's to remove",
            remedy="see deploy/runbooks/leaked-thing.md",
            evidence=part.evidence(),
        )
    if server.deleted_at is not None:
        where, safe, remedy = "deleted", True, ""
    elif part.former and server.host_id == host.id:
        where, safe, remedy = "here, and not moving", False, "see deploy/runbooks/leaked-thing.md"
    elif part.former:
        where, safe, remedy = f"on host {facts.hosts.get(server.host_id or '', 'none')}, and stays there", True, ""
    elif server.vm_state is VmState.SHELVED_OFFLOADED:
        where, safe, remedy = "on the shelf", True, ""
    elif server.host_id is not None:
        where, safe, remedy = f"on host {facts.hosts.get(server.host_id, server.host_id)}", True, ""
    else:
        where, safe, remedy = f"{status(server.vm_state, None)} on no host", False, remedy_without_host(server)
    return suspect(
        FindingKind.REMAINS,
        server.id,
        f"{part} of a server that is {where}",
        "not there",
        server=server,
        host=host,
        safe=safe,
        reason="" if safe else "it may be the only guest of a server that somebody still wants",
        remedy=remedy or f"hostler audit --heal --host {host.id}",
        evidence=part.evidence(),
    )
