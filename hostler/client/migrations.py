"""`client.migrations`: the moves of servers, those under way and those that were."""

from collections.abc import Sequence

from hostler.client.catalogue import Namespace
from hostler.contract.calls import LIST_MIGRATIONS, MAX_MIGRATIONS, MigrationFilter
from hostler.contract.checks import check_number, check_optional_text, check_word
from hostler.contract.servers import MigrationKind, MigrationStatus, ServerMigration

LIMIT = 1000


class Migrations(Namespace):
    """Resizes, migrations, live migrations and evacuations of servers, as the database keeps them."""

    async def list(
        self,
        *,
        host: str | None = None,
        server: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        all_projects: bool = False,
        limit: int = LIMIT,
    ) -> Sequence[ServerMigration]:
        """The moves of the project's servers, or of everybody's, the latest first; at most `limit` of them.

        Args:
            host: only those from this host or to it.
            server: only those of this server; a deleted one by UUID.
            kind: only those of this `MigrationKind`.
            status: only those of this `MigrationStatus`.

        Raises:
            InvalidRequest: a kind or a status that there is not, or a bad limit.
            NotFound: there is no such host or server.
            Conflict: several have the name.
        """
        check_number("limit", limit, minimum=1)
        check_optional_text("host", host)
        check_optional_text("server", server)
        wanted = MigrationFilter(
            project=self._project,
            all_projects=all_projects,
            host=host,
            server=server,
            kind=None if kind is None else check_word("kind", kind, MigrationKind),
            status=None if status is None else check_word("status", status, MigrationStatus),
        )
        found: list[ServerMigration] = []
        while len(found) < limit:
            size = min(limit - len(found), MAX_MIGRATIONS)
            part = {"limit": size, "after": found[-1].id if found else None}
            page = await self._connection.call(LIST_MIGRATIONS, wanted.model_copy(update=part))
            found += page
            if len(page) < size:
                break
        return found
