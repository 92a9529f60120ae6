"""Aggregates of hosts.

Revision 0006, after 0005. The version before knows of none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "aggregate",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_aggregate"),
        sa.UniqueConstraint("name", name="uq_aggregate_name"),
    )
    op.create_table(
        "aggregate_host",
        sa.Column("aggregate_id", sa.String(36), nullable=False),
        sa.Column("host_id", sa.String(36), nullable=False),
        sa.ForeignKeyConstraint(["aggregate_id"], ["aggregate.id"], name="fk_aggregate_host_aggregate_id"),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_aggregate_host_host_id"),
        sa.PrimaryKeyConstraint("aggregate_id", "host_id", name="pk_aggregate_host"),
    )
    op.create_index("ix_aggregate_host_host_id", "aggregate_host", ["host_id"])
