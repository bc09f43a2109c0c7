"""File formats: which are read, which are written, and what each can hold."""

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
}
# Formats that are read and not written, and what the answer is encoded as instead.
ANSWERED_AS = {"heic": "jpeg", "avif": "jpeg", "jp2": "jpeg", "gif": "png"}
READ = (*MEDIA_TYPES, *ANSWERED_AS)
READ_NAMES = "JPEG, PNG, WebP, TIFF, HEIC, AVIF, JPEG 2000 or GIF"  # for people
DEEP_FORMATS = ("png", "tiff")


def can_hold_alpha(format: str) -> bool:
    """Check if a format, a key of MEDIA_TYPES, can be transparent."""
    return format != "jpeg"


def encodes_by_rows(format: str) -> bool:
    """Check if a format, a key of MEDIA_TYPES, is written without the whole picture in memory."""
    return format in ("png", "tiff")
