"""Audit: compare what is with what should be, heal what is safe, report the rest.

| step | where | |
|---|---|---|
| plan_audit | control | which hosts are up |
| look_at_host ‖ look_at_records | control, which asks the host | what is suspected of each host; of what is on none |
| the same again, after a pause | | what is suspected once more, unchanged, is found |
| heal_finding, a host's own undos, finish_healing | control, host, control | if asked to, for each that is safe |

It takes no part in operations: a server that one is at work on is not judged. docs/decisions/audit.md says why it
believes only what it sees twice, and what it never removes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.audit import Audit as Activities
from activities.interfaces.audit import AuditPlan, Look, LookAtHost, LookAtRecords, Suspicion
from activities.interfaces.servers import HostRef
from hostler.contract.audit import AUDIT, AuditReport, AuditRequest, Finding, FindingKind, NotAudited
from workflows.failures import judge
from workflows.healing import LOOK, heal
from workflows.steps import CONTROL_RETRY, QUICK_STEP

HOSTS_AT_ONCE = 5
LISTED = 100
"""So many findings a report lists; the rest it counts."""
RECORDS = ""
"""In place of a host's UUID: what is on no host."""
LAST = (FindingKind.EXPORT, FindingKind.DELETED_SERVER)
"""Healed after the rest, in this order: a volume is given back once it is no longer served."""


@workflow.defn(name=AUDIT)
class Audit:
    """See the table above."""

    def __init__(self) -> None:
        self.done = 0
        self.refused: dict[str, NotAudited] = {}
        self.strangers = False

    @workflow.run
    async def run(self, request: AuditRequest) -> AuditReport:
        """Audit, and report."""
        started_at = workflow.now()
        plan = await workflow.execute_activity_method(
            Activities.plan_audit, request, start_to_close_timeout=QUICK_STEP, retry_policy=CONTROL_RETRY
        )
        self.refused = {one.host_id: one for one in plan.not_audited}
        hosts = {host.id: host for host in plan.hosts}
        first = await self._look(plan, [*hosts.values()], records=plan.everything)
        second: dict[str, Look] = {}
        suspicious = [place for place, look in first.items() if look.suspicions]
        if suspicious:
            await workflow.sleep(request.pause, summary="look again")
            again = [hosts[place] for place in suspicious if place != RECORDS]
            second = await self._look(plan, again, records=RECORDS in suspicious)
        found = [one for place, look in second.items() for one in _confirmed(first[place], look)]
        findings = await self._heal(plan, found) if plan.heal else [_unasked(one.finding) for one in found]
        report = AuditReport(
            heal=plan.heal,
            host=request.host,
            started_at=started_at,
            finished_at=workflow.now(),
            hosts=len(hosts.keys() - self.refused.keys()),
            not_audited=list(self.refused.values())[:LISTED],
            findings=findings[:LISTED],
            counts=_counts(findings, second.values()),
            healed=sum(finding.healed for finding in findings),
        )
        report.more = sum(report.counts.values()) - len(report.findings)
        self._tell(report)
        return report

    # Looks.

    async def _look(self, plan: AuditPlan, hosts: list[HostRef], *, records: bool) -> dict[str, Look]:
        """What is suspected, by place. A host that cannot be judged is left out, and said to be."""
        turns = asyncio.Semaphore(HOSTS_AT_ONCE)
        self.done = 0

        async def in_turn(work: Callable[[], Awaitable[Look]]) -> Look:
            async with turns:
                look = await work()
                self.done += 1
                workflow.set_current_details(f"looked at {self.done} of {len(hosts) + records}")
                return look

        def at(host: HostRef) -> Callable[[], Awaitable[Look]]:
            return lambda: self._look_at_host(host, plan.limit)

        places = [*(host.id for host in hosts), *[RECORDS] * records]
        works = [*map(at, hosts), *[lambda: self._look_at_records(plan.limit)] * records]
        looks = dict(zip(places, await asyncio.gather(*map(in_turn, works)), strict=True))
        self.refused |= {place: look.not_audited for place, look in looks.items() if look.not_audited}
        self.strangers = self.strangers or any(look.strangers for look in looks.values())
        return {place: look for place, look in looks.items() if not look.not_audited}

    async def _look_at_host(self, host: HostRef, limit: int) -> Look:
        try:
            return await workflow.execute_activity_method(
                Activities.look_at_host,
                LookAtHost(host=host, limit=limit),
                start_to_close_timeout=LOOK,
                retry_policy=CONTROL_RETRY,
                summary=host.name,
            )
        except ActivityError as failure:
            reason = judge(failure, host=None).error.detail.message
            return Look(not_audited=NotAudited(host_id=host.id, host=host.name, reason=reason))

    async def _look_at_records(self, limit: int) -> Look:
        return await workflow.execute_activity_method(
            Activities.look_at_records,
            LookAtRecords(limit=limit),
            start_to_close_timeout=LOOK,
            retry_policy=CONTROL_RETRY,
        )

    # What becomes of what was found.

    async def _heal(self, plan: AuditPlan, found: list[Suspicion]) -> list[Finding]:
        complete = plan.everything and not self.refused and not self.strangers
        findings = []
        for one in sorted(found, key=lambda one: one.finding.kind in LAST and 1 + LAST.index(one.finding.kind)):
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError  # `heal` has ended in order
            if one.finding.safe:
                workflow.set_current_details(f"heals {one.finding.kind} {one.finding.subject}")
            findings.append(await heal(one, complete=complete) if one.finding.safe else one.finding)
        return findings

    def _tell(self, report: AuditReport) -> None:
        unhealed = [finding for finding in report.findings if not finding.healed]
        for finding in unhealed:
            where = " on ".join(name for name in (finding.server or finding.subject, finding.host) if name)
            workflow.logger.warning("audit: %s: %s: %s", finding.kind, where, finding.found)
        lines = [
            f"{report.hosts} hosts audited, {len(report.not_audited)} not;"
            f" {sum(report.counts.values())} findings, {report.healed} healed",
            *(f"- not audited: {one.host}: {one.reason}" for one in report.not_audited[:10]),
            *(f"- {finding.kind} {finding.subject}: {finding.found}" for finding in unhealed[:20]),
        ]
        workflow.set_current_details("\n".join(lines))


def _confirmed(first: Look, second: Look) -> list[Suspicion]:
    """What both looks suspect for the same reasons."""
    before = {(one.finding.kind, one.finding.subject): one for one in first.suspicions}
    return [one for one in second.suspicions if before.get((one.finding.kind, one.finding.subject)) == one]


def _unasked(finding: Finding) -> Finding:
    """The finding of an audit that only looks."""
    return finding.model_copy(update={"reason": "this audit only looks"}) if finding.safe else finding


def _counts(findings: list[Finding], looks: Iterable[Look]) -> dict[FindingKind, int]:
    """How many of each kind there are, those included that no look had room for."""
    counts: dict[FindingKind, int] = {}
    kinds = [(finding.kind, 1) for finding in findings] + [item for look in looks for item in look.more.items()]
    for kind, number in kinds:
        counts[kind] = counts.get(kind, 0) + number
    return counts
