"""The way to Temporal, the same for clients and workers: its address, its TLS, its encryption."""

from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from hostler.codec import converter_with
from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.encryption import GIVE_KEY, Keys, load_keys
from hostler.private_files import read_private
from hostler.settings import Settings, TlsSettings

NOTICE = "hostler-encryption-key"
"""Where a namespace's data says with which key its cloud encrypts."""


async def connect(settings: Settings, **more: Any) -> Client:
    """A client of Temporal with the settings' TLS and data converter; `more` goes to `Client.connect`.

    Raises:
        InvalidRequest: certificates or keys that cannot be used.
        DecryptionFailed: the cloud encrypts with a key that is not among the settings'.
        RPCError, RuntimeError: Temporal does not answer.
    """
    keys = load_keys(settings)
    client = await Client.connect(
        settings.temporal.address,
        namespace=settings.temporal.namespace,
        tls=tls_config(settings.temporal.tls),
        data_converter=converter_with(keys),
        **more,
    )
    await check_keys(client, keys)
    return client


async def check_keys(client: Client, keys: Keys) -> None:
    """See that we have the key with which the cloud encrypts: else we would write in clear what it keeps secret.

    Raises:
        DecryptionFailed: we have not.
    """
    key_id = await announced_key(client)
    if key_id and key_id not in keys.ids:
        raise DecryptionFailed(
            f"this cloud encrypts with key {key_id}, which is missing here",
            field="encryption.keys",
            value=key_id,
            remedy=GIVE_KEY,
        )


async def announced_key(client: Client) -> str | None:
    """The ID of the key with which the cloud in the client's namespace says to encrypt."""
    try:
        found = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), retry=True
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:  # whatever is called there next says so
            return None
        raise
    return found.namespace_info.data.get(NOTICE) or None


def tls_config(settings: TlsSettings) -> TLSConfig | bool:
    """What Temporal's library is to be told; False is no TLS.

    Raises:
        InvalidRequest: a file is missing, is not what it should be, or is open to others; a certificate without a key.
    """
    if not settings.enabled:
        return False
    if (settings.client_cert is None) != (settings.client_key is None):
        missing = "client_key" if settings.client_key is None else "client_cert"
        raise InvalidRequest(
            "mutual TLS needs the client's certificate and its key",
            field=f"temporal.tls.{missing}",
            remedy="set both of temporal.tls.client_cert and temporal.tls.client_key, or none",
        )
    authority = _certificate(settings.server_ca, "server_ca")
    certificate = _certificate(settings.client_cert, "client_cert")
    return TLSConfig(
        server_root_ca_cert=authority,
        domain=settings.server_name,
        client_cert=certificate,
        client_private_key=_private_key(settings, certificate),
    )


def _certificate(file: Path | None, name: str) -> bytes | None:
    from cryptography import x509  # takes a twentieth of a worker's start: only with TLS

    if file is None:
        return None
    try:
        content = file.read_bytes()
        x509.load_pem_x509_certificates(content)
    except OSError as error:
        raise _unusable(file, name, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _unusable(file, name, "is no certificate in PEM") from None
    return content


def _private_key(settings: TlsSettings, certificate: bytes | None) -> bytes | None:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    file = settings.client_key
    if file is None or certificate is None:
        return None
    content = read_private(file, "temporal.tls.client_key").encode()
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable(file, "client_key", "is no private key in PEM without a passphrase") from None
    if key.public_key() != x509.load_pem_x509_certificate(certificate).public_key():
        raise _unusable(file, "client_key", f"is not the key of {settings.client_cert}")
    return content


def _unusable(file: Path, name: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{file} {what}",
        field=f"temporal.tls.{name}",
        value=file,
        remedy=f"correct temporal.tls.{name}, or the file",
    )
