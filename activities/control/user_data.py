"""Servers' user data in the database: encrypted wherever there is a key, each bound to its server."""

from sqlmodel import col, select

from hostler.contract.errors import InvalidRequest
from hostler.encryption import Keys, sealed_with
from models import Database, Server


def seal(keys: Keys, server_id: str, user_data: str | None) -> str | None:
    """What the database is given."""
    return None if user_data is None else keys.seal(user_data, _context(server_id))


def unseal(keys: Keys, server_id: str, stored: str | None) -> str | None:
    """What the server was given.

    Raises:
        DecryptionFailed: its key is missing, or it was changed.
    """
    return None if stored is None else keys.unseal(stored, _context(server_id))


def encrypt_all(database: Database, keys: Keys) -> int:
    """Encrypt all that is not encrypted with the first key, a server a transaction; of how many servers.

    Raises:
        InvalidRequest: there is no key.
        DecryptionFailed: one is encrypted with a key that is missing. Those before it are done.
    """
    if keys.first is None:
        raise InvalidRequest("there is no encryption key", field="encryption.keys_file", remedy="hostler key create")
    with database.read() as session:
        rows = session.exec(select(Server.id, Server.user_data).where(col(Server.user_data).is_not(None))).all()
    found = [server_id for server_id, stored in rows if sealed_with(stored or "") != keys.first.id]
    return sum(_encrypt(database, keys, server_id) for server_id in found)


def _encrypt(database: Database, keys: Keys, server_id: str) -> bool:
    with database.write() as session:
        row = session.get(Server, server_id, with_for_update=True)
        if row is None or row.user_data is None:  # deleted meanwhile
            return False
        row.user_data = seal(keys, server_id, unseal(keys, server_id, row.user_data))
        return True


def _context(server_id: str) -> str:
    return f"user_data of {server_id}"
