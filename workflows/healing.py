"""Heals one finding: the database's part, then its host's, then whatever was held is given back.

It is the audit's, and that of a host that comes back. What must be sure before is checked by the activities.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.audit import Audit, Heal, Suspicion, Treated, Treatment
from hostler.contract.audit import Finding
from hostler.contract.names import host_queue
from workflows.concurrency import to_the_end
from workflows.failures import judge
from workflows.steps import CONTROL_RETRY, CONTROL_UNDO_RETRY, HOST_UNDO_RETRY, QUICK_STEP

LOOK = timedelta(seconds=60)
"""The time-out of what asks hosts."""
HOST_ANSWER = timedelta(seconds=20)
HOST_STEP = timedelta(seconds=60)
"""How long one step on the host may take, its retries included: the server may be held meanwhile."""


async def heal(suspicion: Suspicion, *, complete: bool = False, holder: str | None = None) -> Finding:
    """The finding, healed or with the reason why not. A cancellation waits for its end.

    `complete`: every host was asked, and none has a guest that the database does not know. `holder`: the UUID by which
    a server is held meanwhile, None the run's; with one that stays the same, the next run can let go of what a run that
    was terminated has held.
    """
    return await to_the_end(_heal(suspicion, complete, holder or workflow.info().run_id))


async def _heal(suspicion: Suspicion, complete: bool, run_id: str) -> Finding:
    finding = suspicion.finding
    try:
        treatment: Treatment = await workflow.execute_activity_method(
            Audit.heal_finding,
            Heal(suspicion=suspicion, run_id=run_id, complete=complete),
            start_to_close_timeout=LOOK,
            retry_policy=CONTROL_RETRY,
            summary=f"{finding.kind} {finding.subject}",
        )
    except ActivityError as failure:
        return _outcome(finding, judge(failure, host=None).error.detail.message)
    if treatment.healed or treatment.reason:
        return _outcome(finding, treatment.reason)
    reason = await _on_host(treatment)
    await workflow.execute_activity_method(
        Audit.finish_healing,
        Treated(suspicion=suspicion, run_id=run_id, done=not reason),
        start_to_close_timeout=QUICK_STEP,
        retry_policy=CONTROL_UNDO_RETRY,
        summary=f"{finding.kind} {finding.subject}",
    )
    return _outcome(finding, reason)


async def _on_host(treatment: Treatment) -> str:
    """Let the host do its steps in order. Answers why it did not, or nothing."""
    host = treatment.host
    for step in treatment.steps if host else []:
        assert host is not None
        try:
            await workflow.execute_activity(
                step.activity,
                step.argument,
                task_queue=host_queue(host.id),
                schedule_to_start_timeout=HOST_ANSWER,
                schedule_to_close_timeout=HOST_STEP,
                start_to_close_timeout=HOST_STEP,
                retry_policy=HOST_UNDO_RETRY,
                summary=f"on {host.name}",
            )
        except ActivityError as failure:
            return f"{step.activity}: {judge(failure, host=host.name).error.detail.message}"
    return ""


def _outcome(finding: Finding, reason: str) -> Finding:
    return finding.model_copy(update={"healed": not reason, "reason": reason})
