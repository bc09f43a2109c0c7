"""Content Credentials: what C2PA's own reader verifies, and certificates that cannot sign."""

import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from certificates import NAME, Credentials, write_credentials
from cryptography.x509.oid import ExtendedKeyUsageOID
from paths import ROOT
from PIL import Image

from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.errors import InvalidImage
from rehue_serve.formats import MEDIA_TYPES
from rehue_serve.metadata.credentials import Signer, can_hold_credentials
from rehue_serve.metadata.xmp import SOURCE_TYPE
from rehue_serve.settings import SettingsError, load_settings

c2pa = pytest.importorskip("c2pa", reason="the extra c2pa is not installed")

FORMATS = list(MEDIA_TYPES)
LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return write_credentials(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def signer(credentials: Credentials) -> Signer:
    return Signer(credentials.chain, credentials.key)


def sign(
    signer: Signer, data: bytes, format: str, photograph: bytes = b"", edits: str = ""
) -> bytes:
    manifest = signer.begin_manifest(photograph)
    return signer.sign(manifest, data, MEDIA_TYPES[format], "rehue/1", edits)


def encode(photo: bytes, format: str) -> bytes:
    rgb = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    return encode_pictures([rgb], format, 92)


def verify(data: bytes, format: str, root: str = "") -> Any:
    """C2PA's own reader."""
    trust = {"trust": {"trust_anchors": root}} if root else {}
    context = c2pa.Context.from_dict({"verify": {"verify_trust": bool(root)}} | trust)
    return c2pa.Reader(MEDIA_TYPES[format], io.BytesIO(data), context=context)


@pytest.mark.parametrize("format", FORMATS)
def test_signed_pictures_are_trusted_and_changed_ones_are_not(
    signer: Signer, credentials: Credentials, photo: bytes, format: str
) -> None:
    picture = encode(photo, format)
    signed = sign(signer, picture, format, photo, edits="ab12")
    found = verify(signed, format, credentials.root)
    assert found.get_validation_state() == "Trusted"
    manifest = found.get_active_manifest()
    assert manifest["signature_info"]["issuer"] == NAME
    opened, colored, edited = manifest["assertions"][0]["data"]["actions"]
    assert opened["action"] == "c2pa.opened"
    assert colored["action"] == "c2pa.color_adjustments"
    assert colored["digitalSourceType"] == SOURCE_TYPE
    assert colored["softwareAgent"]["name"] == "Rehue"
    assert colored["parameters"]["model"] == "rehue/1"
    assert edited["parameters"]["edits"] == "sha256:ab12"
    assert verify(signed, format).get_validation_state() == "Valid"  # by whoever has no root
    # The pixels are the picture's.
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (picture, signed))
    assert np.array_equal(before, after)
    changed = bytearray(signed)
    changed[len(picture) // 2] ^= 1
    assert verify(bytes(changed), format, credentials.root).get_validation_state() == "Invalid"


def test_a_photographs_own_credentials_are_kept(signer: Signer, photo: bytes) -> None:
    photograph = sign(signer, photo, "jpeg")
    kept = verify(sign(signer, photo, "jpeg", photograph), "jpeg")
    assert kept.get_validation_state() == "Valid"
    assert len(json.loads(kept.json())["manifests"]) == 2
    (ingredient,) = kept.get_active_manifest()["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    assert ingredient["active_manifest"]
    stripped = verify(sign(signer, photo, "jpeg"), "jpeg")
    assert len(json.loads(stripped.json())["manifests"]) == 1


@pytest.mark.parametrize("junk", [b"\xff\xd8\xff\xe1c2pa\0", b"c2pa\0" * 20])
def test_broken_credentials_never_cost_the_picture(
    signer: Signer, photo: bytes, junk: bytes
) -> None:
    assert verify(sign(signer, photo, "jpeg", junk), "jpeg").get_validation_state() == "Valid"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_addresses_in_a_photograph_are_not_asked(
    signer: Signer, photo: bytes, listener: tuple[str, list[str]]
) -> None:
    url, paths = listener
    builder = c2pa.Builder(
        {"claim_generator_info": [{"name": "a stranger"}]}, context=c2pa.Context()
    )
    builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.DIGITAL_CAPTURE)
    builder.set_no_embed()
    builder.set_remote_url(f"{url}/manifest")
    out = io.BytesIO()
    builder.sign(signer._signer, "image/jpeg", io.BytesIO(photo), out)
    photograph = out.getvalue() + b"c2pa\0"
    assert f"{url}/manifest".encode() in photograph
    assert verify(sign(signer, photo, "jpeg", photograph), "jpeg").get_validation_state() == "Valid"
    assert not paths


def test_several_threads_sign_at_once(signer: Signer, photo: bytes) -> None:
    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(lambda _: sign(signer, photo, "jpeg", photo), range(40)))
    assert {verify(data, "jpeg").get_validation_state() for data in signed} == {"Valid"}


@pytest.mark.parametrize("form", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_signed_tiff_of_several_pages_is_read(signer: Signer, form: dict[str, Any]) -> None:
    """C2PA puts the manifest of one into a last directory without a picture."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, **form) as writer:
        for level in (40, 90):
            page = np.random.default_rng(level).integers(level, level + 9, (90, 80), np.uint8)
            writer.write(page, photometric="minisblack", compression="zlib", rowsperstrip=10)
    signed = sign(signer, out.getvalue(), "tiff")
    photograph = images.open_image(signed, **LIMITS)
    assert photograph.header.pages == 2
    assert images.decode_lightness(photograph, 1).min() > 20_000
    place = len(out.getvalue()) * 3 // 4  # in the second page's pixels
    broken = signed[:place] + bytes(50) + signed[place + 50 :]
    with pytest.raises(InvalidImage):
        images.decode_lightness(images.open_image(broken, **LIMITS), 1)
    assert not can_hold_credentials("tiff", 2)  # Pillow refuses such files


def load(monkeypatch: pytest.MonkeyPatch, chain: Path | str, key: Path | str) -> str:
    monkeypatch.setenv("REHUE_C2PA_CERTIFICATES", str(chain))
    monkeypatch.setenv("REHUE_C2PA_KEY", str(key))
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def test_a_server_that_cannot_sign_does_not_start(
    credentials: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = credentials.chain, credentials.key
    folders = {name: tmp_path / name for name in ("other", "tls", "old")}
    for folder in folders.values():
        folder.mkdir()
    other = write_credentials(folders["other"])
    tls = write_credentials(folders["tls"], usage=ExtendedKeyUsageOID.SERVER_AUTH)
    old = write_credentials(folders["old"], days=-1)
    assert "must be set together" in load(monkeypatch, chain, "")
    assert "must be set together" in load(monkeypatch, "", key)
    assert "cannot be read" in load(monkeypatch, tmp_path / "none", key)
    assert "not PEM" in load(monkeypatch, key, key)
    assert "not a PEM private key" in load(monkeypatch, chain, chain)
    assert "does not belong" in load(monkeypatch, chain, other.key)
    assert "certificate is invalid" in load(monkeypatch, tls.chain, tls.key)
    found = load(monkeypatch, old.chain, old.key)
    assert "not valid at time of signing" in found
    assert "\n" not in found
    assert "PRIVATE" not in found


def test_the_page_makes_certificates_that_sign(tmp_path: Path, photo: bytes) -> None:
    page = (ROOT / "docs" / "how-to" / "sign.md").read_text()
    (commands,) = re.findall(r"```sh\n(openssl .*?)```", page, re.DOTALL)
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    signer = Signer(tmp_path / "chain.pem", tmp_path / "key.pem")
    signed = sign(signer, encode(photo, "jpeg"), "jpeg")
    root = (tmp_path / "root.pem").read_text()
    assert verify(signed, "jpeg", root).get_validation_state() == "Trusted"
