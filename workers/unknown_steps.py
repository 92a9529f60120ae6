"""A host worker of an older version refuses a step that it does not know, instead of failing at it."""

from collections.abc import Callable, Sequence
from typing import Any

from temporalio import activity
from temporalio.common import RawValue

from hostler.contract.errors import RescheduleError


def refuse_unknown(host: str) -> Callable[..., Any]:
    """The activity that stands in for all that `host` does not have: another host may have it."""

    @activity.defn(dynamic=True)
    async def unknown(_arguments: Sequence[RawValue]) -> None:
        step = activity.info().activity_type
        raise RescheduleError(
            f"host {host} does not know the step {step}",
            field="host",
            value=host,
            remedy=f"upgrade the worker of {host}: the control worker is newer",
        )

    return unknown
