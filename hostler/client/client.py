"""`Client`: a cloud, for Python programs."""

from types import TracebackType
from typing import Self

from hostler.client.aggregates import Aggregates
from hostler.client.audit import Audits
from hostler.client.catalogue import Flavors, Hosts, KeyPairs, Networks, Quotas
from hostler.client.connection import Connection, connect, settle
from hostler.client.migrations import Migrations
from hostler.client.operations import Operations
from hostler.client.servers import Servers
from hostler.client.storage import Images, Volumes
from hostler.settings import Settings, load


class Client:
    """A cloud, as one project sees it.

    It talks to Temporal alone: to the workflows of the operations, and to the workers that answer calls.

        async with await Client.connect() as client:
            operation = await client.servers.boot("web-1", flavor="m1.tiny", image="demo", networks=["private"])
            async for progress in operation.follow():
                ...
            server = await operation.result()
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.servers = Servers(connection)
        self.operations = Operations(connection)
        self.migrations = Migrations(connection)
        self.images = Images(connection)
        self.flavors = Flavors(connection)
        self.networks = Networks(connection)
        self.volumes = Volumes(connection)
        self.hosts = Hosts(connection)
        self.aggregates = Aggregates(connection)
        self.audit = Audits(connection)
        self.quotas = Quotas(connection)
        self.keypairs = KeyPairs(connection)

    @classmethod
    async def connect(
        cls,
        settings: Settings | None = None,
        *,
        address: str | None = None,
        namespace: str | None = None,
        project: str | None = None,
    ) -> Self:
        """Connect to the cloud's Temporal.

        Args:
            settings: None reads them as the command line does.
            address, namespace, project: each over its setting.

        Raises:
            Unavailable: Temporal does not answer.
        """
        settings = settings or load()
        changes = {"address": address, "namespace": namespace}
        given = {name: value for name, value in changes.items() if value is not None}
        temporal = settings.temporal.model_copy(update=given)
        settings = settings.model_copy(update={"temporal": temporal})
        return cls(await connect(settings, project or settings.project))

    @property
    def project(self) -> str:
        """Whose things it sees and makes."""
        return self._connection.project

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await settle()
