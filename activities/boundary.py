"""Where activities meet Temporal: our errors become its errors."""

from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from hostler.contract.errors import HostlerError


class ErrorBoundary(Interceptor):
    """Gives each error that an activity raises on purpose its form on the wire."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put the boundary around `next`."""
        return _Boundary(next)


class _Boundary(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except HostlerError as error:
            raise error.to_application_error() from error.__cause__
        except ExceptionGroup as group:
            raise ApplicationError(f"{group.message}: {group.exceptions[0]}", type="ExceptionGroup") from group
