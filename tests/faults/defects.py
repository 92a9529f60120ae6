"""Defects that tests plant into the product's workers, to see that the matrix finds them."""

from drivers.hypervisor.simulated import SimulatedHypervisor
from scheduler import reservation


def guests_are_not_destroyed() -> None:
    """The undo of `spawn` does nothing, and says that it did."""

    async def destroy(self: SimulatedHypervisor, server_id: str) -> None:
        """Nothing."""

    SimulatedHypervisor.destroy = destroy  # type: ignore[method-assign]


def allocations_are_not_released() -> None:
    """The undo of `schedule` does nothing."""
    import activities.control.scheduling

    def release(*_: object) -> None:
        """Nothing."""

    assert activities.control.scheduling.release is reservation.release  # type: ignore[attr-defined]
    activities.control.scheduling.release = release  # type: ignore[assignment,attr-defined]
