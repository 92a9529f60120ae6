"""Makes suspicions: the words in which each is told."""

from activities.interfaces.audit import Evidence, Look, Suspicion
from activities.interfaces.servers import HostRef
from hostler.contract.audit import Finding, FindingKind
from models import Server

TEXT_LIMIT = 300


def suspect(
    kind: FindingKind,
    subject: str,
    found: str,
    expected: str,
    *,
    server: Server | None = None,
    host: HostRef | None = None,
    safe: bool = False,
    reason: str = "",
    remedy: str = "",
    evidence: Evidence | None = None,
) -> Suspicion:
    """One suspicion. What the server's row says of itself always belongs to the evidence."""
    finding = Finding(
        kind=kind,
        subject=subject,
        server_id=server.id if server else None,
        server=server.name if server else None,
        host_id=host.id if host else None,
        host=host.name if host else None,
        found=found[:TEXT_LIMIT],
        expected=expected[:TEXT_LIMIT],
        safe=safe,
        reason=reason[:TEXT_LIMIT],
        remedy=remedy[:TEXT_LIMIT],
    )
    evidence = evidence or Evidence()
    if server is not None:
        row = {"updated_at": server.updated_at, "operation_id": server.operation_id}
        evidence = evidence.model_copy(update=row)
    return Suspicion(finding=finding, evidence=evidence)


def remedy_without_host(server: Server) -> str:
    """What to do about a server on no host of which there is something left."""
    if server.shelved_at is not None:  # a delete would remove the image that keeps its disk
        return f"when the host that has its guest is back, or declared down: hostler server unshelve {server.id}"
    return f"hostler server delete {server.id}"


def stray(path: str, found: str, where: str, host: HostRef | None = None) -> Suspicion:
    """A file at `path` that has no business there; whoever looks at it does so on `where`."""
    return suspect(
        FindingKind.STRAY_FILE,
        path,
        found,
        "not there",
        host=host,
        reason="nobody knows what it is",
        remedy=f"look at it on {where}; see deploy/runbooks/leaked-thing.md",
    )


def listed(suspicions: list[Suspicion], limit: int, *, strangers: bool = False) -> Look:
    """The look that suspects this, no longer than `limit`."""
    order = sorted(suspicions, key=lambda one: (not one.finding.safe, one.finding.kind, one.finding.subject))
    more: dict[FindingKind, int] = {}
    for one in order[limit:]:
        more[one.finding.kind] = more.get(one.finding.kind, 0) + 1
    return Look(suspicions=order[:limit], more=more, strangers=strangers)
