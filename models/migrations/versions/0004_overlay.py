"""Networks that span hosts.

Revision 0004, after 0003. The version before makes networks without a VNI; they get one with their next port.
"""

from uuid import NAMESPACE_URL, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("network", sa.Column("vni", sa.Integer(), nullable=True))
    op.create_index("ix_network_vni", "network", ["vni"], unique=True)
    network = sa.table("network", sa.column("id", sa.String), sa.column("vni", sa.Integer))
    connection, given = op.get_bind(), set[int]()
    for network_id in connection.scalars(sa.select(network.c.id).order_by(network.c.id)).all():
        vni = _vni(network_id, given)
        given.add(vni)
        connection.execute(sa.update(network).where(network.c.id == network_id).values(vni=vni))


def _vni(network_id: str, given: set[int]) -> int:
    """As the code does it: what follows from the UUID, or from its next hash where that is taken."""
    candidate = network_id
    while True:
        candidate = uuid5(NAMESPACE_URL, candidate).hex
        vni = int(candidate[:6], 16)
        if vni and vni not in given:
            return vni
