"""Register a host: what its worker does first when it starts.

| step | where | undo |
|---|---|---|
| register_host | control: the row; frees what a former account held; answers what the host owes | - |
| each owed undo, then settle_owed | host, then control | - |
| look_at_host | control, which asks the host what it holds | - |
| heal_finding, undos, finish_healing | control, host, control: for what is left of servers that are gone | - |
| settle_owed | control: the account of what it holds is given | - |

A host takes no new server while it owes something, be it the account: the scheduler's filter sees to that. What a host
cannot do it goes on owing, with the reason; it is asked again a little later. Without its account nothing is removed.
A server follows its guest that the host switches on or off so; one that is busy does later: the host is asked again.
What the control plane does not know is left alone, and said.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.interfaces.audit import Audit, Look, LookAtHost
from activities.interfaces.guests import Guests
from activities.interfaces.hosts import Hosts, OwedId, OwedWork, account_of
from activities.interfaces.servers import HostRef
from hostler.contract.audit import Finding, FindingKind, NotAudited
from hostler.contract.calls import REGISTER_HOST, Nothing
from hostler.contract.errors import HostlerError, NotFound
from hostler.contract.names import host_queue
from hostler.contract.resources import HostRegistration
from hostler.contract.states import PowerState
from workflows.failures import judge
from workflows.healing import LOOK, heal
from workflows.steps import CONTROL_RETRY, CONTROL_UNDO_RETRY, HOST_RETRY, HOST_UNDO_RETRY, QUICK_STEP

UNDO = timedelta(seconds=60)
POWER = (Guests.start_guest.__name__, Guests.stop_guest.__name__)
"""Nothing builds on these: a guest that cannot be started is off. The server's row follows when they are settled."""
UNKNOWN = (FindingKind.UNKNOWN_SERVER, FindingKind.FOREIGN_GUEST, FindingKind.UNKNOWN_VOLUME)
"""What a host may hold that nobody here can say whether it is still needed."""


@workflow.defn(name=REGISTER_HOST)
class RegisterHost:
    """See the table above."""

    @workflow.run
    async def run(self, host: HostRegistration) -> Nothing:
        """Register the host, let it do what it owes, and remove what is left of servers that are gone."""
        owed = await workflow.execute_activity_method(
            Hosts.register_host,
            host,
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_RETRY,
            summary=f"register {host.name}",
        )
        failed: set[str | None] = set()
        for work in owed:
            workflow.set_current_details(f"{host.name} owes: {work.activity} of server {work.server_id}")
            # The works of one server build on each other.
            if work.server_id not in failed and not await self._do(host, work):
                failed.add(work.server_id)
        await self._account(HostRef(id=host.id, name=host.name))
        return Nothing()

    async def _do(self, host: HostRegistration, work: OwedWork) -> bool:
        """Let the host do one thing that it owes; False when it could not."""
        error: HostlerError | None = None
        try:
            power_state = await workflow.execute_activity(
                work.activity,
                work.argument,
                task_queue=host_queue(host.id),
                result_type=PowerState if work.activity in POWER else None,
                start_to_close_timeout=UNDO,
                retry_policy=HOST_UNDO_RETRY,
                summary=f"owed: {work.activity} of {work.server_id}",
            )
        except ActivityError as failure:
            verdict = judge(failure, host=host.name)
            error, reason = verdict.error, verdict.error.detail.message
            if work.activity not in POWER or not verdict.answered:
                await self._still_owes(work, reason)
                return False
            workflow.logger.warning("host %s: %s of %s given up: %s", host.name, work.activity, work.server_id, reason)
            power_state = _without(work, error)
        await self._settle(work, power_state, error)
        return True

    async def _account(self, host: HostRef) -> None:
        """Have the host say what it holds, and let it remove what is confirmed to be gone."""
        healed = True
        while healed:
            look = await self._look(host)
            if look.not_audited is not None:
                await self._still_owes(account_of(host.id, ""), look.not_audited.reason)
                return
            gone = [one for one in look.suspicions if one.finding.kind is FindingKind.REMAINS and one.finding.safe]
            findings = [await heal(one, holder=account_of(host.id, "").id) for one in gone]
            # A look is of limited length.
            healed = FindingKind.REMAINS in look.more and any(finding.healed for finding in findings)
        self._tell(host, [*findings, *(one.finding for one in look.suspicions if one.finding.kind in UNKNOWN)])
        await self._settle(account_of(host.id, ""))

    async def _look(self, host: HostRef) -> Look:
        try:
            return await workflow.execute_activity_method(
                Audit.look_at_host,
                LookAtHost(host=host),
                start_to_close_timeout=LOOK,
                retry_policy=HOST_RETRY,
                summary=f"what {host.name} holds",
            )
        except ActivityError as failure:
            reason = judge(failure, host=None).error.detail.message
            return Look(not_audited=NotAudited(host_id=host.id, host=host.name, reason=reason))

    def _tell(self, host: HostRef, findings: list[Finding]) -> None:
        """Say what was removed, and what was left alone."""
        lines = [f"{host.name} has said what it holds"]
        for one in findings:
            outcome = "removed" if one.healed else f"left alone: {one.reason}"
            lines.append(f"- {one.found} ({one.subject}): {outcome}")
            workflow.logger.warning("host %s holds %s (%s): %s", host.name, one.found, one.subject, outcome)
        workflow.set_current_details("\n".join(lines))

    async def _settle(
        self, work: OwedWork, power_state: PowerState | None = None, error: HostlerError | None = None
    ) -> None:
        call = OwedId(id=work.id, host_id=work.host_id, failure=error.detail.message if error else None)
        if work.activity in POWER:  # the host's own calls are no news to it: it reports none of what they do
            call = call.model_copy(update={"server_id": work.server_id, "power_state": power_state})
        await workflow.execute_activity_method(
            Hosts.settle_owed,
            call,
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_UNDO_RETRY,
        )

    async def _still_owes(self, work: OwedWork, reason: str) -> None:
        workflow.logger.warning("host %s cannot do what it owes, %s: %s", work.host_id, work.activity, reason)
        await workflow.execute_activity_method(
            Hosts.owe,
            work.model_copy(update={"reason": reason}),
            start_to_close_timeout=QUICK_STEP,
            retry_policy=CONTROL_UNDO_RETRY,
            summary=f"still owed: {work.activity}",
        )


def _without(work: OwedWork, error: HostlerError) -> PowerState | None:
    """What a guest is that could not be switched on or off; None: nobody knows."""
    if isinstance(error, NotFound):
        return PowerState.NOSTATE
    return PowerState.SHUTDOWN if work.activity == Guests.start_guest.__name__ else None
