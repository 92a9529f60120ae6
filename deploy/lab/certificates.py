"""The lab's certificates: an authority of its own, and one certificate for each host, as server and as client.

They lie where libvirt and QEMU look for them: hosts connect to each other by qemu+tls, and guests migrate over TLS.
"""

import shutil
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=365)
CLOCKS = timedelta(hours=1)
QEMU_USER = "libvirt-qemu"
PRIVATE = 0o600


class Authority:
    """Signs certificates. Its key is never written down: a lab's hosts are all made at once."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} certificate authority")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        signed = builder.add_extension(_usage(authority=True), critical=True).sign(self._key, hashes.SHA256())
        self._certificate = signed.public_bytes(serialization.Encoding.PEM)

    def issue(self, host: str, address: IPv4Address, etc: Path) -> None:
        """A certificate for the host, and everything where it belongs below `etc`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        names = [x509.DNSName(host), x509.IPAddress(address)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _lay_out(etc / "pki", self._certificate, certificate, private)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCKS)
            .not_valid_after(now + LIFE)
        )


def _lay_out(pki: Path, authority: bytes, certificate: bytes, key: bytes) -> None:
    _write(pki / "CA" / "cacert.pem", authority)
    _write(pki / "qemu" / "ca-cert.pem", authority)
    for side in ("server", "client"):
        _write(pki / "libvirt" / f"{side}cert.pem", certificate)
        _write(pki / "libvirt" / "private" / f"{side}key.pem", key, PRIVATE)
        _write(pki / "qemu" / f"{side}-cert.pem", certificate)
        _write(pki / "qemu" / f"{side}-key.pem", key, PRIVATE)
        shutil.chown(pki / "qemu" / f"{side}-key.pem", QEMU_USER)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    path.write_bytes(content)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
