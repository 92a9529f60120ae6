"""Defects that tests plant into the product's workers, to see that the matrix finds them."""

from temporalio import activity

from activities.control.host_watch import HostWatch
from activities.control.ports import Ports
from activities.interfaces.host_watch import Fencing
from activities.interfaces.servers import HostRef, ServerRef
from drivers.hypervisor.simulated import SimulatedHypervisor
from drivers.image.local import LocalImageStore


def guests_are_not_destroyed() -> None:
    """The undo of `spawn` does nothing, and says that it did."""

    async def destroy(self: SimulatedHypervisor, server_id: str) -> None:
        """Nothing."""

    SimulatedHypervisor.destroy = destroy  # type: ignore[method-assign]  # the product, broken on purpose


def ports_are_not_released() -> None:
    """The undo of `allocate_ports` does nothing."""

    @activity.defn(name="release_ports")
    def release_ports(self: Ports, call: ServerRef) -> None:
        """Nothing."""

    Ports.release_ports = release_ports  # type: ignore[method-assign]  # the product, broken on purpose


def images_stay_in_the_store() -> None:
    """The undo of `import_image` removes the row only."""

    def remove(self: LocalImageStore, image_id: str) -> None:
        """Nothing."""

    LocalImageStore.remove = remove  # type: ignore[method-assign]  # the product, broken on purpose


def hosts_are_not_fenced() -> None:
    """Whoever fences a host does nothing, and says that it is off."""

    @activity.defn(name="fence_host")
    async def fence_host(self: HostWatch, call: HostRef) -> Fencing:
        """Nothing."""
        return Fencing()

    HostWatch.fence_host = fence_host  # type: ignore[method-assign]  # the product, broken on purpose
