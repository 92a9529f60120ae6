"""OpenSSH public keys: what they must look like, and their fingerprints."""

import base64
import binascii
import hashlib
from collections.abc import Iterator

from hostler.contract.checks import reject

# How many strings the key's blob holds, its type's name included (RFC 4253, 5656, 8709, OpenSSH's PROTOCOL.u2f).
FIELDS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
MAX_LENGTH = 16_384
REMEDY = "pass the content of a file like ~/.ssh/id_ed25519.pub: one line, 'type base64 comment'"


def fingerprint(public_key: str) -> str:
    """The key's SHA-256 fingerprint, as `ssh-keygen -l` shows it.

    Raises:
        InvalidRequest: it is no OpenSSH public key, or of a type that OpenSSH no longer accepts.
    """
    digest = hashlib.sha256(_blob(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _blob(public_key: str) -> bytes:
    # A second line would be a second key in the guest's authorized_keys.
    if len(public_key) > MAX_LENGTH or not public_key.strip().isprintable():
        reject("public_key", public_key, "is not one printable line", REMEDY)
    words = public_key.split(maxsplit=2)
    if len(words) < 2 or words[0] not in FIELDS:
        reject("public_key", public_key, f"is not of a known type ({', '.join(FIELDS)})", REMEDY)
    try:
        blob = base64.b64decode(words[1], validate=True)
        fields = list(_strings(blob))
    except (binascii.Error, ValueError):
        reject("public_key", public_key, "is damaged: its second word does not decode", REMEDY)
    if len(fields) != FIELDS[words[0]] or fields[0] != words[0].encode() or not all(fields[:3]):
        reject("public_key", public_key, f"is damaged: its content is no {words[0]} key", REMEDY)
    return blob


def _strings(blob: bytes) -> Iterator[bytes]:
    """The length-prefixed strings of which a blob is made."""
    while blob:
        size, rest = int.from_bytes(blob[:4], "big"), blob[4:]
        if len(blob) < 4 or size > len(rest):
            raise ValueError("the blob ends too early")
        yield rest[:size]
        blob = rest[size:]
