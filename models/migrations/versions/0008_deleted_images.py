"""Images that were deleted.

Revision 0008, after 0007. The version before neither writes nor reads it. Of the images that are gone already, those of
servers that are there are entered; their checksums nobody knows any more.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "deleted_image",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_image"),
    )
    server = _table("server", "id", "project", "image_id", "deleted_at")
    device = _table("block_device", "server_id", "image_id")
    image, deleted = _table("image", "id"), _table("deleted_image", "id", "project", "checksum")
    deleted.append_column(sa.column("deleted_at", sa.DateTime(timezone=True)))
    living = sa.select(server).where(server.c.deleted_at.is_(None)).subquery()
    booted = sa.select(living.c.image_id, living.c.project)
    beneath = sa.select(device.c.image_id, living.c.project).join(living, living.c.id == device.c.server_id)
    connection = op.get_bind()
    known = set(connection.execute(sa.select(image.c.id)).scalars())
    gone = {one: project for one, project in connection.execute(booted.union(beneath)) if one not in {None, *known}}
    now = datetime.now(UTC)
    rows = [{"id": one, "project": project, "checksum": "", "deleted_at": now} for one, project in gone.items()]
    if rows:
        connection.execute(sa.insert(deleted), rows)


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column, sa.String) for column in columns))
