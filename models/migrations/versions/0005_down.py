"""Hosts that are declared down.

Revision 0005, after 0004. The version before neither declares nor looks: a host is then what it always was.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("host", sa.Column("down_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("host", sa.Column("down_reason", sa.Text(), nullable=True))
    op.add_column("host", sa.Column("fenced", sa.Boolean(), nullable=False, server_default=sa.false()))
