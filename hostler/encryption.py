"""The keys that encrypt what Temporal and the database keep: AES-256-GCM, a fresh random nonce each time.

The first key encrypts and every key decrypts, so that keys are changed while everything runs. An encrypted text is
bound to its context: moved elsewhere it can no longer be decrypted.
"""

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.private_files import named_lines, read_private
from hostler.settings import Settings

DEFAULT_FILE = "encryption.keys"
KEY_BYTES, NONCE_BYTES = 32, 12
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SEALED = "sealed:"
GIVE_KEY = "add the key's line to encryption.keys_file (or HOSTLER_ENCRYPTION__KEYS) of this process"


@dataclass(frozen=True)
class Key:
    """A key of 32 bytes and its public name."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, key_id: str) -> "Key":
        """A new random key.

        Raises:
            InvalidRequest: an impossible ID.
        """
        _check_id(key_id, "key")
        return cls(key_id, os.urandom(KEY_BYTES))

    @property
    def line(self) -> str:
        """The line of a key file. Secret."""
        return f"{self.id}:{base64.b64encode(self.secret).decode()}"

    def encrypt(self, content: bytes, context: bytes) -> bytes:
        """The nonce and the encrypted content; `context` is not in it, but needed to decrypt it."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, content, context)

    def decrypt(self, content: bytes, context: bytes) -> bytes:
        """The content.

        Raises:
            DecryptionFailed: it, or its context, is not what was encrypted.
        """
        try:
            return AESGCM(self.secret).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise DecryptionFailed(
                f"what was encrypted with key {self.id} has been changed since, or the key is another one of that ID",
                field="encryption.keys",
                value=self.id,
                remedy="compare the key with that of the process that wrote it; if it is the same, "
                "look for who changed Temporal's or Hostler's database",
            ) from None


class Keys:
    """All keys of a process; there may be none."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = {key.id: key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def all(self) -> list[Key]:
        """In their order."""
        return list(self._keys.values())

    @property
    def ids(self) -> list[str]:
        """Their names, in their order."""
        return list(self._keys)

    @property
    def first(self) -> Key | None:
        """The one that encrypts."""
        return next(iter(self._keys.values()), None)

    def key(self, key_id: str) -> Key:
        """The key of that name.

        Raises:
            DecryptionFailed: it is not among them.
        """
        try:
            return self._keys[key_id]
        except KeyError:
            has = f"it has {', '.join(self._keys)}" if self._keys else "it has none"
            raise DecryptionFailed(
                f"encryption key {key_id} is missing in this process; {has}",
                field="encryption.keys",
                value=key_id,
                remedy=GIVE_KEY,
            ) from None

    def seal(self, text: str, context: str) -> str:
        """`text` encrypted with the first key, as a text; unchanged where there is no key."""
        if self.first is None:
            return text
        content = self.first.encrypt(text.encode(), context.encode())
        return f"{SEALED}{self.first.id}:{base64.b64encode(content).decode()}"

    def unseal(self, text: str, context: str) -> str:
        """What was sealed in this context; a text that never was, unchanged.

        Raises:
            DecryptionFailed: its key is missing, or it was changed.
        """
        key_id = sealed_with(text)
        if key_id is None:
            return text
        content = base64.b64decode(text.removeprefix(f"{SEALED}{key_id}:"))
        return self.key(key_id).decrypt(content, context.encode()).decode()


def sealed_with(text: str) -> str | None:
    """The ID of the key that a text is sealed with, None for one that is not sealed."""
    return text.removeprefix(SEALED).partition(":")[0] if text.startswith(SEALED) else None


def load_keys(settings: Settings) -> Keys:
    """The keys of `encryption.keys`, else of its file.

    Raises:
        InvalidRequest: a line that is no key, or a file that cannot be read or that others can read.
    """
    if settings.encryption.keys is not None:
        return parse_keys(settings.encryption.keys.get_secret_value(), "encryption.keys")
    file = keys_file(settings)
    if settings.encryption.keys_file is None and not file.exists():
        return Keys()
    return parse_keys(read_private(file, "encryption.keys_file"), "encryption.keys_file")


def keys_file(settings: Settings) -> Path:
    """Where the keys are, or would be."""
    return settings.encryption.keys_file or settings.state_dir / DEFAULT_FILE


def parse_keys(text: str, setting: str) -> Keys:
    """The keys in a text, one a line. No error shows any of it.

    Raises:
        InvalidRequest: which line is no key.
    """
    keys: list[Key] = []
    for number, key_id, secret in named_lines(text):
        _check_id(key_id, setting, number)
        try:
            key = Key(key_id, base64.b64decode(secret, validate=True))
        except binascii.Error:
            key = Key(key_id, b"")
        if len(key.secret) != KEY_BYTES:
            raise _bad(setting, number, f"the key is not the base64 of {KEY_BYTES} bytes")
        if key_id in [other.id for other in keys]:
            raise _bad(setting, number, "its ID is an earlier line's")
        keys.append(key)
    if not keys:
        raise _bad(setting, 1, "there is no key in it")
    return Keys(keys)


def _check_id(key_id: str, setting: str, line: int = 1) -> None:
    if not KEY_ID.fullmatch(key_id):
        raise _bad(setting, line, "an ID has 1 to 64 of the characters A-Z a-z 0-9 . _ -")


def _bad(setting: str, line: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{setting}, line {line}: {what}",
        field=setting,
        remedy="each line is <id>:<base64 of 32 bytes>; `hostler key create` makes one",
    )
