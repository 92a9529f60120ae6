"""Quotas: whether a project may have more, checked while its limits are locked."""

from sqlmodel import Session

from hostler.contract.errors import QuotaExceeded
from models import lock_quota, quota_use

UNLIMITED = -1


def check_quota(session: Session, project: str, **wanted: int) -> None:
    """That the project may have `wanted` more of each (servers, vcpus, ram_mib, volumes, volume_gib).

    Raises:
        QuotaExceeded: names the first that it may not.
    """
    limits, used = lock_quota(session, project), quota_use(session, project)
    for what, more in wanted.items():
        limit, use = getattr(limits, what), getattr(used, what)
        if limit != UNLIMITED and more > 0 and use + more > limit:
            raise QuotaExceeded(
                f"project {project} uses {use} of {limit} {what}, and asks for {more} more",
                field=what,
                value=more,
                remedy="delete something, or have the quota raised: hostler quota set",
            )
