"""The limits that bind one operation: the settings' word when it was accepted."""

from activities.interfaces.servers import Limits
from hostler.contract.servers import OnFailure, OperationName
from hostler.settings import Settings


def limits_of(settings: Settings, operation: OperationName, max_attempts: int | None = None) -> Limits:
    """What the settings say; `max_attempts` is the request's own word."""
    overdue = settings.operations.overdue
    return Limits(
        max_attempts=max_attempts or settings.scheduler.max_attempts,
        host_answer=settings.timeouts.host_answer,
        vif_plugged=settings.timeouts.vif_plugged,
        stop=settings.timeouts.stop,
        on_failure=OnFailure(settings.operations.on_failure),
        hold=settings.operations.hold,
        overdue=overdue.get(operation, overdue.get("*")) or None,
        offload_after=settings.operations.offload_after,
    )
