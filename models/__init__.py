"""The database: SQLModel tables, one file a concept, and the transactions and migrations around them."""

from models.aggregate import Aggregate, AggregateHost
from models.allocation import Allocation
from models.base import Table, now
from models.block_device import BlockDevice
from models.database import Database
from models.flavor import Flavor
from models.host import Host, bump_generation
from models.image import DeletedImage, Image, drop_image
from models.keypair import KeyPair
from models.migration import OPEN_MIGRATIONS, Migration
from models.network import Network, Port
from models.owed_work import OwedWork, enter_owed, forget_start, owes
from models.quota import Quota, QuotaUse, lock_quota, quota_use
from models.schema import check_revision, current, head, upgrade
from models.server import Server
from models.server_event import ServerEvent
from models.volume import Volume

__all__ = [
    "OPEN_MIGRATIONS",
    "Aggregate",
    "AggregateHost",
    "Allocation",
    "BlockDevice",
    "Database",
    "DeletedImage",
    "Flavor",
    "Host",
    "Image",
    "KeyPair",
    "Migration",
    "Network",
    "OwedWork",
    "Port",
    "Quota",
    "QuotaUse",
    "Server",
    "ServerEvent",
    "Table",
    "Volume",
    "bump_generation",
    "check_revision",
    "current",
    "drop_image",
    "enter_owed",
    "forget_start",
    "head",
    "lock_quota",
    "now",
    "owes",
    "quota_use",
    "upgrade",
]
