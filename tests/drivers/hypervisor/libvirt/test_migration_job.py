"""What libvirt says of a migration, and what it is asked to do with one; libvirt's part is played."""

from typing import Any

import libvirt
import pytest

from drivers.hypervisor.libvirt.migration_job import Forced, force
from hostler.contract.errors import InvalidState

NOT_WITH_THIS_FLAG, NOT_YET = libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INTERNAL_ERROR


class Domain:
    """A guest on its way, of whose memory so much is still here; libvirt has something against post-copy."""

    def __init__(self, memory_left: int, against: int | None) -> None:
        self._left, self._against = memory_left, against
        self.suspended = False

    def jobStats(self) -> dict[str, Any]:  # noqa: N802 - libvirt's name
        kind, operation = libvirt.VIR_DOMAIN_JOB_UNBOUNDED, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        return {"type": kind, "operation": operation, "memory_remaining": self._left}

    def migrateStartPostCopy(self) -> None:  # noqa: N802 - libvirt's name
        if self._against is not None:
            error = libvirt.libvirtError("no")
            error.err = (self._against,)
            raise error

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]

    def suspend(self) -> None:
        self.suspended = True


class TestForce:
    @pytest.mark.parametrize(
        ("memory_left", "against", "done"),
        [
            (1 << 20, None, Forced.POST_COPY),
            (1 << 20, NOT_WITH_THIS_FLAG, Forced.STILL),
            (0, NOT_WITH_THIS_FLAG, Forced.STILL),
            (0, NOT_YET, Forced.SOON),
            (1 << 20, NOT_YET, Forced.STILL),
        ],
    )
    def test_the_guest_stands_still_only_where_nothing_else_helps(
        self, memory_left: int, against: int | None, done: Forced
    ) -> None:
        domain = Domain(memory_left, against)
        assert force(domain, patient=True) is done
        assert domain.suspended is (done is Forced.STILL)

    def test_one_that_is_not_on_its_way_is_refused(self) -> None:
        domain = Domain(0, None)
        domain.jobStats = lambda: {"type": libvirt.VIR_DOMAIN_JOB_NONE}  # type: ignore[method-assign]  # it is played
        with pytest.raises(InvalidState, match="no migration"):
            force(domain, patient=True)

    def test_whoever_does_not_want_to_wait_for_the_disks_has_the_guest_stand_still(self) -> None:
        domain = Domain(0, NOT_YET)
        assert force(domain, patient=False) is Forced.STILL
        assert domain.suspended
