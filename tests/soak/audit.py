"""What the product's own audit says of it: while processes are killed, and at the end, when it must find nothing."""

from collections import Counter

from hostler.contract.audit import AUDIT, AuditReport, FindingKind
from tests.neighbours.flight import persistently
from tests.processes.cloud import ProcessCloud
from tests.soak.journal import Journal
from tests.soak.model import Model

# What may be there without anybody's fault: a power operation whose host fell silent half-way, the cache's copy of an
# image that was deleted, and what a host could not do yet.
EXPECTED = {FindingKind.POWER_STATE, FindingKind.CACHED_IMAGE, FindingKind.OWED_WORK}


async def final(cloud: ProcessCloud, model: Model, journal: Journal) -> None:
    """Let it heal what operations left to it, and then find nothing."""
    first = await persistently(lambda: cloud.client.audit(heal=True))
    uncertain = {server_id for server_id, expected in model.servers.items() if not expected.certain}
    for finding in first.findings:
        known = finding.kind is FindingKind.CACHED_IMAGE or (
            finding.kind is FindingKind.POWER_STATE and finding.server_id in uncertain
        )
        if not known:
            journal.fault("audit", f"{finding.kind} {finding.subject}: {finding.found}, not {finding.expected}")
    second = await persistently(lambda: cloud.client.audit(heal=False))
    for finding in second.findings:
        journal.fault("audit", f"after healing, {finding.kind} {finding.subject}: {finding.found}")
    for silent in (*first.not_audited, *second.not_audited):
        journal.fault("audit", f"{silent.host} was not audited: {silent.reason}")


async def past(cloud: ProcessCloud, journal: Journal) -> Counter[str]:
    """What the scheduled audits found while processes were killed: whatever they heal must not have been a leak."""
    found: Counter[str] = Counter()
    async for one in cloud.temporal_client.list_workflows(f"WorkflowType = '{AUDIT}'"):
        handle = cloud.temporal_client.get_workflow_handle(one.id, run_id=one.run_id, result_type=AuditReport)
        report = await handle.result()
        found.update(finding.kind.value for finding in report.findings)
        for finding in report.findings:
            if finding.kind not in EXPECTED:
                journal.fault("audit", f"{one.id}: {finding.kind} {finding.subject}: {finding.found}")
    return found
