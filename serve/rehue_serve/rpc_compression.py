"""Compressed gRPC messages, decompressed here and not by gRPC.

gRPC ends a call whose message is too large after decompression like one without a message: the
handler cannot tell, so it could neither count nor answer the reason. gRPC hands over compressed
messages as they come, and says nothing of it, but their first bytes do: a protobuf message never
begins with those of gzip, and ours not with those of zlib.
"""

import zlib
from collections.abc import Callable
from typing import Any

from rehue_serve.errors import ImageTooLarge

# Of the channel: messages are not decompressed.
AS_THEY_COME = ("grpc.per_message_decompression", 0)
SIGNATURES = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip, zlib
EITHER = zlib.MAX_WBITS | 32  # zlib's word for both formats
SMALL = 1 << 16  # bytes of a message without a photograph


def is_compressed(message: bytes) -> bool:
    """Check if a message is compressed with gzip or deflate, gRPC's algorithms."""
    return message.startswith(SIGNATURES)


def decompress(message: bytes, limit: int) -> bytes:
    """Decompress a message; what is not compressed, or broken, is returned as it is.

    Args:
        message: as it came.
        limit: of the decompressed message, in bytes.

    Raises:
        ImageTooLarge: it is larger.
    """
    if not is_compressed(message):
        return message
    try:
        stream = zlib.decompressobj(EITHER)
        content = stream.decompress(message, limit + 1)
    except zlib.error:
        return message
    if len(content) > limit:
        raise ImageTooLarge(
            f"The message has more than {limit:,} bytes when it is decompressed, the limit. "
            "ColorizeChunks takes larger photographs."
        )
    return content if stream.eof else message


def accept_compressed(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Let a parser of small messages take compressed ones too."""
    return lambda message: parse(decompress(message, SMALL))
