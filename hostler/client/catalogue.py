"""`client.flavors`, `.networks`, `.hosts`, `.quotas` and `.keypairs`: what one transaction of the control worker does.

Things are named by name or UUID. Every method raises `NotFound`, `Conflict`, `InvalidRequest` or `Unavailable`.
"""

from collections.abc import Sequence
from uuid import uuid4

from hostler.client.connection import Connection
from hostler.client.host_watch import HostWatching
from hostler.client.host_work import HostMoves
from hostler.contract import calls
from hostler.contract.calls import Filter, HostDown, HostState, Ref
from hostler.contract.checks import check_text
from hostler.contract.resources import Flavor, Host, KeyPair, Network, Quota
from hostler.contract.validation import check_flavor, check_keypair, check_network, check_quota


class Namespace:
    """One kind of things of a project."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._project = connection.project

    def _ref(self, ref: str) -> Ref:
        return Ref(ref=ref, project=self._project)

    def _filter(self, all_projects: bool = False) -> Filter:
        return Filter(project=self._project, all_projects=all_projects)


class Flavors(Namespace):
    """Sizes, the same for all projects."""

    async def create(
        self,
        name: str,
        *,
        vcpus: int,
        ram_mib: int,
        disk_gib: int = 0,
        ephemeral_gib: int = 0,
        swap_mib: int = 0,
        flavor_id: str | None = None,
    ) -> Flavor:
        """Make a flavor. `disk_gib` 0 means as large as the image."""
        flavor = Flavor(
            id=flavor_id or str(uuid4()),
            name=name,
            vcpus=vcpus,
            ram_mib=ram_mib,
            disk_gib=disk_gib,
            ephemeral_gib=ephemeral_gib,
            swap_mib=swap_mib,
        )
        check_flavor(flavor)
        return await self._connection.call(calls.CREATE_FLAVOR, flavor)

    async def list(self) -> Sequence[Flavor]:
        """All flavors."""
        return await self._connection.call(calls.LIST_FLAVORS, self._filter())

    async def show(self, flavor: str) -> Flavor:
        """One flavor."""
        return await self._connection.call(calls.SHOW_FLAVOR, self._ref(flavor))

    async def delete(self, flavor: str) -> None:
        """Delete a flavor; servers made with it keep their size."""
        await self._connection.call(calls.DELETE_FLAVOR, self._ref(flavor))


class Networks(Namespace):
    """Networks with one IPv4 subnet each."""

    async def create(
        self,
        name: str,
        *,
        cidr: str,
        gateway: str | None = None,
        dns: Sequence[str] = (),
        mtu: int = 1500,
        network_id: str | None = None,
    ) -> Network:
        """Make a network. `gateway` None is the subnet's first address, `mtu` is in bytes."""
        network = Network(
            id=network_id or str(uuid4()),
            name=name,
            cidr=cidr,
            gateway=gateway,
            dns=list(dns),
            mtu=mtu,
            project=self._project,
        )
        check_network(network)
        return await self._connection.call(calls.CREATE_NETWORK, network)

    async def list(self, *, all_projects: bool = False) -> Sequence[Network]:
        """The project's networks, or everybody's."""
        return await self._connection.call(calls.LIST_NETWORKS, self._filter(all_projects))

    async def show(self, network: str) -> Network:
        """One network."""
        return await self._connection.call(calls.SHOW_NETWORK, self._ref(network))

    async def delete(self, network: str) -> None:
        """Delete a network that no port uses."""
        await self._connection.call(calls.DELETE_NETWORK, self._ref(network))


class Hosts(Namespace, HostMoves, HostWatching):
    """The hypervisors. They register themselves when their workers start."""

    async def list(self) -> Sequence[Host]:
        """All hosts."""
        return await self._connection.call(calls.LIST_HOSTS, calls.Nothing())

    async def show(self, host: str) -> Host:
        """One host."""
        return await self._connection.call(calls.SHOW_HOST, self._ref(host))

    async def enable(self, host: str) -> Host:
        """Let the scheduler use a host again."""
        return await self._connection.call(calls.SET_HOST, HostState(ref=host, enabled=True))

    async def disable(self, host: str, reason: str | None = None) -> Host:
        """Keep the scheduler from placing new servers on a host; those that it has stay."""
        return await self._connection.call(calls.SET_HOST, HostState(ref=host, enabled=False, reason=reason))

    async def declare_down(self, host: str, reason: str, *, fenced: bool = False) -> Host:
        """Say that a host's machine is off, and stays so until it is repaired: its servers may be evacuated.

        Nobody checks that, but that the host's worker does not answer: a guest that runs on after all would run twice.
        When the host registers again it is no longer down.

        Args:
            reason: for those who wonder later.
            fenced: it was seen to that the machine is off, and is not only said.
        """
        check_text("reason", reason)
        return await self._connection.call(calls.DECLARE_DOWN, HostDown(ref=host, reason=reason, fenced=fenced))

    async def new_machine(self, host: str) -> Host:
        """Let the next machine that comes with the host's UUID be the host: the one that was is off for good."""
        return await self._connection.call(calls.NEW_MACHINE, self._ref(host))


class Quotas(Namespace):
    """The project's limits; -1 is none."""

    async def show(self) -> Quota:
        """The limits, and what is used of them."""
        return await self._connection.call(calls.SHOW_QUOTA, self._filter())

    async def set(
        self,
        *,
        servers: int | None = None,
        vcpus: int | None = None,
        ram_mib: int | None = None,
        volumes: int | None = None,
        volume_gib: int | None = None,
    ) -> Quota:
        """Change the limits that are given, and keep the others."""
        changes = {
            "servers": servers,
            "vcpus": vcpus,
            "ram_mib": ram_mib,
            "volumes": volumes,
            "volume_gib": volume_gib,
        }
        given = {limit: value for limit, value in changes.items() if value is not None}
        quota = (await self.show()).model_copy(update=given)
        check_quota(quota)
        return await self._connection.call(calls.SET_QUOTA, quota)


class KeyPairs(Namespace):
    """Public keys. The private halves never come here."""

    async def create(self, name: str, public_key: str) -> KeyPair:
        """Store a public key, in OpenSSH's one-line format."""
        keypair = KeyPair(name=name, public_key=public_key.strip(), project=self._project)
        check_keypair(keypair)
        return await self._connection.call(calls.CREATE_KEYPAIR, keypair)

    async def list(self) -> Sequence[KeyPair]:
        """The project's key pairs."""
        return await self._connection.call(calls.LIST_KEYPAIRS, self._filter())

    async def show(self, keypair: str) -> KeyPair:
        """One key pair, by name."""
        return await self._connection.call(calls.SHOW_KEYPAIR, self._ref(keypair))

    async def delete(self, keypair: str) -> None:
        """Delete a key pair; servers that have it keep it."""
        await self._connection.call(calls.DELETE_KEYPAIR, self._ref(keypair))
