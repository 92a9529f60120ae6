"""How values become what Temporal keeps: pydantic's JSON, encrypted, and failures with nothing left readable.

A process without keys writes plain payloads. Plain payloads are read by everybody, so histories from before encryption
was on go on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from hostler.contract.errors import InvalidRequest
from hostler.encryption import Keys, load_keys
from hostler.settings import Settings

ENCODING, KEY_ID = "encoding", "encryption-key-id"
ENCRYPTED = b"binary/encrypted"


class EncryptionCodec(PayloadCodec):
    """Encrypts whole payloads, their metadata included. What a new payload says of itself is authenticated."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads, encrypted with the first key."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads as they were; those that are not encrypted as they are.

        Raises:
            DecryptionFailed: a key is missing, or a payload was changed.
        """
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        key = self._keys.first
        if key is None:
            return payload
        metadata = {ENCODING: ENCRYPTED, KEY_ID: key.id.encode()}
        return Payload(metadata=metadata, data=key.encrypt(payload.SerializeToString(), _context(metadata)))

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get(ENCODING) != ENCRYPTED:
            return payload
        key = self._keys.key(payload.metadata.get(KEY_ID, b"").decode(errors="replace"))
        return Payload.FromString(key.decrypt(payload.data, _context(payload.metadata)))


def _context(metadata: Mapping[str, bytes]) -> bytes:
    """All metadata in one unambiguous form."""
    parts = [b"payload", *(part for name in sorted(metadata) for part in (name.encode(), metadata[name]))]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class ContractPayloadConverter(PydanticPayloadConverter):
    """Pydantic's JSON. An error about a value does not repeat the value, which may be secret."""

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """The values.

        Raises:
            InvalidRequest: one is not of its type.
        """
        try:
            return super().from_payloads(payloads, type_hints)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            reasons = [f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}" for problem in problems]
            raise InvalidRequest(
                f"this is no {error.title}: {'; '.join(reasons)}",
                remedy="use the same version of Hostler on both sides",
            ) from None


def data_converter(settings: Settings) -> DataConverter:
    """The one that every process of a cloud with these settings uses.

    Raises:
        InvalidRequest: the keys cannot be used.
    """
    return converter_with(load_keys(settings))


def converter_with(keys: Keys) -> DataConverter:
    """The data converter that encrypts with these keys."""
    # Without keys failures stay readable in Temporal's UI, as all the rest is.
    failures = DefaultFailureConverterWithEncodedAttributes if keys else DefaultFailureConverter
    return DataConverter(
        payload_converter_class=ContractPayloadConverter,
        payload_codec=EncryptionCodec(keys),
        failure_converter_class=failures,
    )
