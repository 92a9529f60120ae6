"""Servers that move, and servers on the shelf.

Revision 0003, after 0002. A server may have two allocations of one host, of which one is its former: the column is part
of the key, with a default, so that the version before goes on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("server", sa.Column("shelved_image_id", sa.String(36), nullable=True))
    op.add_column("server", sa.Column("shelved_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "migration",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("source_id", sa.String(36), nullable=False),
        sa.Column("target_id", sa.String(36), nullable=True),
        sa.Column("old_flavor", sa.JSON(), nullable=False),
        sa.Column("new_flavor", sa.JSON(), nullable=False),
        sa.Column("old_devices", sa.JSON(), nullable=False),
        sa.Column("former_vm_state", sa.String(32), nullable=False),
        sa.Column("former_power_state", sa.String(32), nullable=False),
        sa.Column("confirms_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name="fk_migration_server_id"),
        sa.ForeignKeyConstraint(["source_id"], ["host.id"], name="fk_migration_source_id"),
        sa.ForeignKeyConstraint(["target_id"], ["host.id"], name="fk_migration_target_id"),
        sa.PrimaryKeyConstraint("id", name="pk_migration"),
    )
    op.create_index("ix_migration_server_id", "migration", ["server_id"])
    op.create_index("ix_migration_source_id", "migration", ["source_id"])
    with op.batch_alter_table("allocation", recreate="auto") as allocation:
        allocation.add_column(sa.Column("former", sa.Boolean(), nullable=False, server_default=sa.false()))
        allocation.drop_constraint("pk_allocation", type_="primary")
        allocation.create_primary_key("pk_allocation", ["server_id", "host_id", "former"])
