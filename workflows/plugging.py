"""The wait for vif-plugged: a guest runs only when its network does."""

import asyncio
from collections.abc import Sequence
from typing import Any

from temporalio import workflow

from activities.interfaces.servers import HostRef
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import PortBinding
from workflows.operation import Operation

WAIT_VIF_PLUGGED = "wait_vif_plugged"


async def wait_vif_plugged(operation: Operation[Any], ports: Sequence[PortBinding], host: HostRef) -> None:
    """Until the host has seen every port's tap in its bridge; what it saw before counts.

    Raises:
        RescheduleError: it did not, in the time that the settings give it.
    """
    wanted = {(port.port_id, host.id) for port in ports}
    while wanted:
        record = operation.begin_record(WAIT_VIF_PLUGGED, host)
        timeout = operation.limits.vif_plugged
        try:
            await workflow.wait_condition(lambda: wanted <= operation.plugged, timeout=timeout)
        except TimeoutError:
            missing = ", ".join(sorted(port for port, _ in wanted - operation.plugged))
            error = RescheduleError(f"no vif-plugged event within {timeout.total_seconds():g} s for port {missing}")
            operation.end_record(record, error)
            await operation.stuck(record, error, host)
        except asyncio.CancelledError as cancelled:
            operation.end_record(record, cancelled)
            raise
        else:
            operation.end_record(record)
            return
