"""Operations that hold; hosts told apart by their machines.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("server", sa.Column("hold", sa.JSON(), nullable=True))
    op.add_column("host", sa.Column("machine_id", sa.String(), nullable=True))
