"""Real photographs, signed by a running server and verified by C2PA's own reader."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tifffile
from certificates import NAME, Credentials, write_credentials
from paths import PHOTOS
from PIL import Image

from rehue_client import Client
from rehue_serve.formats import MEDIA_TYPES
from rehue_serve.metadata.xmp import SOURCE_TYPE
from rehue_serve.testing.servers import Server, run_server

c2pa = pytest.importorskip("c2pa", reason="the extra c2pa is not installed")

PHOTOGRAPHS = sorted(PHOTOS.glob("*.jpg"))[:4]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return write_credentials(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def signing(credentials: Credentials, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that signs."""
    log = tmp_path_factory.mktemp("signing") / "log"
    chain, key = str(credentials.chain), str(credentials.key)
    with run_server(log, c2pa_certificates=chain, c2pa_key=key) as running:
        yield running
    assert str(credentials.key) not in running.read_log()


def verify(data: bytes, format: str, root: str) -> Any:
    trust = {"trust": {"trust_anchors": root}, "verify": {"verify_trust": True}}
    context = c2pa.Context.from_dict(trust)
    return c2pa.Reader(MEDIA_TYPES[format], io.BytesIO(data), context=context)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("format", list(MEDIA_TYPES))
def test_real_photographs_are_signed(
    signing: Server, credentials: Credentials, format: str, protocol: str
) -> None:
    with Client(signing.urls[protocol]) as client:
        answers = [client.colorize(path, format=format) for path in PHOTOGRAPHS]
    for answer in answers:
        found = verify(answer.data, format, credentials.root)
        assert found.get_validation_state() == "Trusted"
        manifest = found.get_active_manifest()
        assert manifest["signature_info"]["issuer"] == NAME
        colored = manifest["assertions"][0]["data"]["actions"][1]
        assert colored["digitalSourceType"] == SOURCE_TYPE
        assert colored["parameters"]["model"] == answer.model
        assert SOURCE_TYPE.encode() in answer.data  # the mark is in XMP too
        pixels = np.asarray(Image.open(io.BytesIO(answer.data)))
        assert pixels.std() > 10
        changed = bytearray(answer.data)
        changed[len(changed) // 2] ^= 1
        state = verify(bytes(changed), format, credentials.root).get_validation_state()
        assert state == "Invalid"


def test_a_signed_answer_can_be_sent_again(signing: Server, credentials: Credentials) -> None:
    """The photograph's own credentials stay, unless its metadata is not wanted."""
    with Client(signing.http_url) as client:
        first = client.colorize(PHOTOGRAPHS[0]).data
        kept, bare = (client.colorize(first, metadata=word).data for word in ("keep", "none"))
    for data, has_own in ((kept, True), (bare, False)):
        found = verify(data, "jpeg", credentials.root)
        assert found.get_validation_state() == "Trusted"
        (photograph,) = found.get_active_manifest()["ingredients"]
        assert ("active_manifest" in photograph) is has_own


def test_a_tiff_of_several_pages_is_answered_unsigned(signing: Server) -> None:
    """Pillow and others could not open it."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for level in (60, 120):
            writer.write(np.full((40, 60), level, np.uint8), photometric="minisblack")
    with Client(signing.grpc_url) as client:
        answer = client.colorize(out.getvalue()).data
    with Image.open(io.BytesIO(answer)) as picture:
        assert getattr(picture, "n_frames", 1) == 2
    assert b"c2pa\0" not in answer
