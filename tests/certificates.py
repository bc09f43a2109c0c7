"""Certificates for signing pictures, made for one run of the tests."""

import datetime
import inspect
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
NAME = "Test archive"


@dataclass(frozen=True)
class Credentials:
    """Files that sign, and the certificate that they are trusted by.

    Attributes:
        chain: PEM file of the signer's certificate and the root's.
        key: PEM file of the signer's private key.
        root: the root's certificate, PEM.
    """

    chain: Path
    key: Path
    root: str


def write_credentials(
    folder: Path,
    *,
    usage: ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    days: int = 30,
) -> Credentials:
    """Make a root, and a certificate by it that C2PA takes.

    Args:
        folder: for the files.
        usage: what the certificate is for.
        days: until it expires.
    """
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _issue("Test root", root_key, "Test root", root_key, None, 30)
    own = _issue(NAME, key, "Test root", root_key, usage, days)
    chain, file = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(own.public_bytes(_PEM) + root.public_bytes(_PEM))
    file.write_bytes(key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption()))
    return Credentials(chain, file, root.public_bytes(_PEM).decode())


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    usage: ObjectIdentifier | None,
    days: int,
) -> x509.Certificate:
    now, is_root = datetime.datetime.now(datetime.UTC), usage is None
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    used = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
    used |= {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_build_name(name))
        .issuer_name(_build_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(x509.KeyUsage(**used), critical=True)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _build_name(name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, NAME), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])
