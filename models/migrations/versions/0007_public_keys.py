"""Servers that keep the key that they were given.

Revision 0007, after 0006. The version before neither writes nor reads it: it takes the key from the key pair each time.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("server", sa.Column("public_keys", sa.JSON(), nullable=True))
    server = sa.table(
        "server",
        *(sa.column(name, sa.String) for name in ("project", "key_name", "deleted_at")),
        sa.column("public_keys", sa.JSON),
    )
    pair = sa.table("key_pair", *(sa.column(name, sa.String) for name in ("project", "name", "public_key")))
    connection = op.get_bind()
    for project, name, public_key in connection.execute(sa.select(pair)).all():
        has_it = (server.c.project == project, server.c.key_name == name, server.c.deleted_at.is_(None))
        connection.execute(sa.update(server).where(*has_it).values(public_keys={name: public_key}))
