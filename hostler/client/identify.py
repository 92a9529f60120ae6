"""Which server is meant by a name or a UUID."""

from hostler.client.connection import Connection
from hostler.contract.calls import LIST_SERVERS, ServerFilter
from hostler.contract.errors import Conflict, NotFound
from hostler.contract.names import is_uuid


async def identify(connection: Connection, server: str) -> tuple[str, str | None]:
    """The server's UUID, and its name where it had to be looked up.

    Raises:
        NotFound: no server of the project has the name.
        Conflict: several have it.
    """
    if is_uuid(server.lower()):
        return server.lower(), None
    wanted = ServerFilter(project=connection.project, name=server)
    named = [one for one in await connection.call(LIST_SERVERS, wanted) if one.name == server]
    if not named:
        raise NotFound(
            f"no server is named {server!r}",
            field="server",
            value=server,
            remedy="`hostler server list` shows them",
        )
    if len(named) > 1:
        raise Conflict(
            f"{len(named)} servers are named {server!r}: {', '.join(one.id for one in named)}",
            field="server",
            value=server,
            remedy="name the one that is meant by its UUID",
        )
    return named[0].id, server
