"""The first tables.

Revision 0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "flavor",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gib", sa.Integer(), nullable=False),
        sa.Column("swap_mib", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flavor"),
        sa.UniqueConstraint("name", name="uq_flavor_name"),
    )
    op.create_table(
        "host",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("reserved_ram_mib", sa.Integer(), nullable=False),
        sa.Column("reserved_disk_gib", sa.Integer(), nullable=False),
        sa.Column("cpu_ratio", sa.Float(), nullable=False),
        sa.Column("ram_ratio", sa.Float(), nullable=False),
        sa.Column("disk_ratio", sa.Float(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("hypervisor_type", sa.String(), nullable=False),
        sa.Column("volumes", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_host"),
    )
    op.create_index("ix_host_name", "host", ["name"])
    op.create_table(
        "image",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("disk_format", sa.String(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("min_disk_gib", sa.Integer(), nullable=False),
        sa.Column("min_ram_mib", sa.Integer(), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_image"),
    )
    op.create_index("ix_image_project_name", "image", ["project", "name"])
    op.create_table(
        "key_pair",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name="pk_key_pair"),
    )
    op.create_table(
        "network",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("cidr", sa.String(), nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("dns", sa.JSON(), nullable=False),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_network"),
        sa.UniqueConstraint("project", "name", name="uq_network_project_name"),
    )
    op.create_table(
        "quota",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("servers", sa.Integer(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mib", sa.Integer(), nullable=False),
        sa.Column("volumes", sa.Integer(), nullable=False),
        sa.Column("volume_gib", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_quota"),
    )
    op.create_table(
        "server_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("operation", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_server_event"),
        sa.UniqueConstraint("server_id", "run_id", "position", name="uq_server_event_server_id_run_id_position"),
    )
    op.create_table(
        "owed_work",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host_id", sa.String(36), nullable=False),
        sa.Column("server_id", sa.String(36), nullable=True),
        sa.Column("activity", sa.String(), nullable=False),
        sa.Column("argument", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_owed_work_host_id"),
        sa.PrimaryKeyConstraint("id", name="pk_owed_work"),
    )
    op.create_index("ix_owed_work_host_id", "owed_work", ["host_id"])
    op.create_index("ix_owed_work_server_id", "owed_work", ["server_id"])
    op.create_table(
        "server",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("vm_state", sa.String(32), nullable=False),
        sa.Column("task_state", sa.String(32), nullable=True),
        sa.Column("power_state", sa.String(32), nullable=False),
        sa.Column("flavor", sa.JSON(), nullable=False),
        sa.Column("flavor_id", sa.String(36), nullable=False),
        sa.Column("flavor_name", sa.String(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mib", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(36), nullable=True),
        sa.Column("image_name", sa.String(), nullable=True),
        sa.Column("host_id", sa.String(36), nullable=True),
        sa.Column("availability_zone", sa.String(), nullable=True),
        sa.Column("key_name", sa.String(), nullable=True),
        sa.Column("user_data", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("config_drive", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.JSON(), nullable=True),
        sa.Column("operation_id", sa.String(36), nullable=True),
        sa.Column("request_fingerprint", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_server_host_id"),
        sa.PrimaryKeyConstraint("id", name="pk_server"),
    )
    op.create_index("ix_server_host_id", "server", ["host_id"])
    op.create_index("ix_server_name", "server", ["name"])
    op.create_index("ix_server_project_name", "server", ["project", "name"])
    op.create_index(
        "ix_server_quota_use", "server", ["project", "deleted_at", "vm_state", "launched_at", "vcpus", "ram_mib"]
    )
    op.create_table(
        "allocation",
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("host_id", sa.String(36), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_allocation_host_id"),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name="fk_allocation_server_id"),
        sa.PrimaryKeyConstraint("server_id", "host_id", name="pk_allocation"),
    )
    op.create_index("ix_allocation_host_id", "allocation", ["host_id"])
    op.create_table(
        "block_device",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source_type", sa.String(32), nullable=False),
        sa.Column("destination_type", sa.String(32), nullable=False),
        sa.Column("image_id", sa.String(36), nullable=True),
        sa.Column("volume_id", sa.String(36), nullable=True),
        sa.Column("bootable", sa.Boolean(), nullable=False),
        sa.Column("delete_on_termination", sa.Boolean(), nullable=False),
        sa.Column("guest_format", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name="fk_block_device_server_id"),
        sa.PrimaryKeyConstraint("id", name="pk_block_device"),
    )
    op.create_index("ix_block_device_server_id", "block_device", ["server_id"])
    op.create_index("ix_block_device_volume_id", "block_device", ["volume_id"])
    op.create_table(
        "port",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("network_id", sa.String(36), nullable=False),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("mac", sa.String(), nullable=False),
        sa.Column("ip", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name="fk_port_network_id"),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name="fk_port_server_id"),
        sa.PrimaryKeyConstraint("id", name="pk_port"),
        sa.UniqueConstraint("mac", name="uq_port_mac"),
        sa.UniqueConstraint("network_id", "ip", name="uq_port_network_id_ip"),
    )
    op.create_index("ix_port_server_id", "port", ["server_id"])
    op.create_table(
        "volume",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("image_id", sa.String(36), nullable=True),
        sa.Column("host_id", sa.String(36), nullable=True),
        sa.Column("server_id", sa.String(36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_volume_host_id"),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name="fk_volume_server_id"),
        sa.PrimaryKeyConstraint("id", name="pk_volume"),
    )
    op.create_index("ix_volume_host_id", "volume", ["host_id"])
    op.create_index("ix_volume_project", "volume", ["project"])
    op.create_index("ix_volume_server_id", "volume", ["server_id"])


def downgrade() -> None:
    """Back."""
    for table in (
        "volume",
        "port",
        "block_device",
        "allocation",
        "server",
        "owed_work",
        "server_event",
        "quota",
        "network",
        "key_pair",
        "image",
        "host",
        "flavor",
    ):
        op.drop_table(table)
