"""`client.audit`: compares what is with what should be, and heals what is safe to heal."""

from uuid import uuid4

from temporalio.client import ScheduleActionExecutionStartWorkflow, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from hostler.client.connection import Connection
from hostler.client.errors import typed
from hostler.contract.audit import AUDIT, AuditReport, AuditRequest
from hostler.contract.errors import NotFound
from hostler.contract.names import CONTROL_QUEUE


class Audits:
    """Audits of the whole cloud: they see all projects."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __call__(self, *, heal: bool | None = None, host: str | None = None) -> AuditReport:
        """Audit now, and return what was found.

        Args:
            heal: whether to heal what is safe to heal; None is the control worker's setting.
            host: name or UUID; None is all hosts, and what is on none.

        Raises:
            NotFound, Conflict: there is no such host, or several.
            OperationFailed, Unavailable: as they say.
        """
        audit = self._connection.temporal.execute_workflow(
            AUDIT,
            AuditRequest(heal=heal, host=host),
            id=f"{AUDIT}:{uuid4()}",
            task_queue=CONTROL_QUEUE,
            result_type=AuditReport,
            static_summary=f"audit of {host or 'everything'}",
        )
        report: AuditReport = await self._connection.answered(audit, endless=True)
        return report

    async def last(self) -> AuditReport:
        """What the last scheduled audit found that has ended.

        Raises:
            NotFound: none has ended yet, or the audit does not run by itself.
            OperationFailed, Unavailable: as they say.
        """
        client = self._connection.temporal
        with typed(self._connection.address):
            try:
                schedule = await client.get_schedule_handle(AUDIT).describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                raise NotFound(
                    "the audit does not run by itself", remedy="set audit.interval, or: hostler audit"
                ) from error
            for result in reversed(schedule.info.recent_actions):
                action = result.action
                assert isinstance(action, ScheduleActionExecutionStartWorkflow)
                handle = client.get_workflow_handle(
                    action.workflow_id, run_id=action.first_execution_run_id, result_type=AuditReport
                )
                if (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                    report: AuditReport = await handle.result()
                    return report
        raise NotFound("no scheduled audit has ended yet", remedy="wait for it, or: hostler audit")
