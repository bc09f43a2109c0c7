"""Content Credentials (C2PA 2.4): a signature over the picture, and what was done to it.

c2pa-python is an optional extra; it is imported only where a certificate is set.
"""

import io
import logging
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rehue_serve.decoding.kinds import identify_format
from rehue_serve.encoding.png import encode_png
from rehue_serve.errors import Internal
from rehue_serve.metadata.xmp import SOURCE_TYPE

log = logging.getLogger(__name__)

_SETTINGS = {
    # A photograph may name the address of a manifest or of its certificate's status: no request
    # is made to either.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_LABEL = b"c2pa\0"  # of the box that holds a file's manifests, in every format
_PHOTOGRAPH = "photograph"  # the ingredient's label
_CURVES = {256: "es256", 384: "es384", 521: "es512"}  # bits of the key: algorithm


class CredentialsError(ValueError):
    """The certificates or the key cannot sign; the message says why, in one sentence."""


class Signer:
    """Signs pictures with one private key and its certificates; for use by several threads."""

    def __init__(self, certificates: Path, key: Path) -> None:
        """Read the files and sign a pixel.

        Args:
            certificates: PEM file, the signer's own first, then those up to the root's.
            key: PEM file with its private key, without a password.

        Raises:
            CredentialsError: they cannot sign.
        """
        if find_spec("c2pa") is None:
            raise CredentialsError("signing needs c2pa-python: pip install '.[serve,c2pa]'")
        import c2pa

        chain = _read_file(certificates)
        algorithm, private = _load_key(_read_file(key), chain)
        pixel = encode_png(np.zeros((1, 1, 3), np.uint8))
        try:
            self._context = c2pa.Context.from_dict(_SETTINGS)
            info = c2pa.C2paSignerInfo(algorithm.encode(), chain, private, None)
            self._signer = c2pa.Signer.from_info(info)
            signed = self._sign(self.begin_manifest(), pixel, "image/png")
            state = c2pa.Reader("image/png", io.BytesIO(signed)).get_validation_state()
        except c2pa.C2paError as error:
            raise CredentialsError(f"C2PA refuses the certificates: {error}") from None
        if state not in ("Valid", "Trusted"):
            raise CredentialsError("a picture signed with them is not valid")

    def begin_manifest(self, data: bytes = b"") -> Any:
        """Begin the manifest of a picture, with its photograph as the ingredient.

        Args:
            data: the photograph's file, whose own manifests are kept; empty: they are not.
        """
        import c2pa

        agent = {"name": "Rehue", "version": version("rehue")}
        parent = {"title": _PHOTOGRAPH, "relationship": "parentOf", "label": _PHOTOGRAPH}
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_PHOTOGRAPH]}}
        actions = {"label": "c2pa.actions.v2", "data": {"actions": [opened]}}
        manifest = {"claim_generator_info": [agent], "assertions": [actions]}
        if _LABEL in data:
            builder = c2pa.Builder(manifest, context=self._context)
            try:
                media_type = f"image/{identify_format(data)}"
                builder.add_ingredient(parent, media_type, io.BytesIO(data))
            except c2pa.C2paError as error:  # broken ones never cost the picture
                log.info("a photograph's Content Credentials are not read: %s", error)
            else:
                return builder
        return c2pa.Builder(manifest | {"ingredients": [parent]}, context=self._context)

    def sign(self, manifest: Any, data: bytes, media_type: str, model: str, edits: str) -> bytes:
        """Sign a picture; returns its file with the manifest in it.

        Args:
            manifest: as `begin_manifest` returns it; it is used up.
            data: the encoded picture.
            media_type: of it.
            model: name and version of the network.
            edits: digest of the person's choices; empty: there are none.

        Raises:
            Internal: the certificate has expired since the start.
        """
        import c2pa

        manifest.add_action(_describe_action("c2pa.color_adjustments", model=model))
        if edits:
            manifest.add_action(_describe_action("c2pa.edited", edits=f"sha256:{edits}"))
        try:
            return self._sign(manifest, data, media_type)
        except c2pa.C2paError as error:
            log.error("a picture cannot be signed: %s", error)
            raise Internal("The picture cannot be signed.") from None

    def _sign(self, manifest: Any, data: bytes, media_type: str) -> bytes:
        out = io.BytesIO()
        manifest.sign(self._signer, media_type, io.BytesIO(data), out)
        return out.getvalue()


def create_signer(certificates: Path | None, key: Path | None) -> Signer | None:
    """Create the signer that the settings name; None if they name none."""
    return Signer(certificates, key) if certificates and key else None


def _describe_action(action: str, **parameters: str) -> dict[str, Any]:
    agent = {"name": "Rehue", "version": version("rehue")}
    return {
        "action": action, "softwareAgent": agent, "digitalSourceType": SOURCE_TYPE,
        "parameters": parameters,
    }  # fmt: skip


def can_hold_credentials(format: str, pages: int) -> bool:
    """Check if an answer can be signed so that every reader still opens it.

    Args:
        format: of the answer, a key of `rehue_serve.MEDIA_TYPES`.
        pages: of it. Those of several get a directory without a picture, which Pillow refuses.
    """
    return format != "tiff" or pages == 1


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None


def _load_key(data: bytes, chain: bytes) -> tuple[str, bytes]:
    """Load the first certificate's key; returns C2PA's name of its algorithm, and it as PKCS #8."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        key: Any = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        raise CredentialsError("the key is not a PEM private key without a password") from None
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise CredentialsError("the certificates are not PEM") from None
    if certificate.public_key() != key.public_key():
        raise CredentialsError("the key does not belong to the first certificate")
    return _name_algorithm(key), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name_algorithm(key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size in _CURVES:
        return _CURVES[key.key_size]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise CredentialsError(
        "C2PA does not support this type of key; use P-256, P-384, P-521, RSA or Ed25519"
    )
