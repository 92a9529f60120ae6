"""Register a host: what its worker does first when it starts.

| step | where | undo |
|---|---|---|
| register_host | control: the row; answers what the host owes | - |
| each owed undo, then settle_owed | host, then control | - |

A host takes no new server while it owes something: the scheduler's filter sees to that.
"""

from datetime import timedelta

from temporalio import workflow

from activities.interfaces.hosts import Hosts, OwedId, OwedWork
from hostler.contract.calls import REGISTER_HOST, Nothing
from hostler.contract.names import host_queue
from hostler.contract.resources import HostRegistration
from workflows.steps import CONTROL_RETRY, CONTROL_UNDO_RETRY


@workflow.defn(name=REGISTER_HOST)
class RegisterHost:
    """See the table above."""

    @workflow.run
    async def run(self, host: HostRegistration) -> Nothing:
        """Register the host and let it do what it owes."""
        owed = await workflow.execute_activity_method(
            Hosts.register_host,
            host,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=CONTROL_RETRY,
            summary=f"register {host.name}",
        )
        for work in owed:
            workflow.set_current_details(f"{host.name} owes: {work.activity} of server {work.server_id}")
            await self._settle(host, work)
        workflow.set_current_details(f"{host.name} owes nothing")
        return Nothing()

    async def _settle(self, host: HostRegistration, work: OwedWork) -> None:
        await workflow.execute_activity(
            work.activity,
            work.argument,
            task_queue=host_queue(host.id),
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=CONTROL_UNDO_RETRY,
            summary=f"owed: {work.activity} of {work.server_id}",
        )
        await workflow.execute_activity_method(
            Hosts.settle_owed,
            OwedId(id=work.id, host_id=host.id),
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=CONTROL_UNDO_RETRY,
        )
