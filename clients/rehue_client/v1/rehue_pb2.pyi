from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    INVALID_IMAGE: _ClassVar[ErrorReason]
    IMAGE_TOO_LARGE: _ClassVar[ErrorReason]
    UNSUPPORTED_IMAGE: _ClassVar[ErrorReason]
    INVALID_PARAMETER: _ClassVar[ErrorReason]
    UNKNOWN_MODEL: _ClassVar[ErrorReason]
    UNAUTHENTICATED: _ClassVar[ErrorReason]
    OVERLOADED: _ClassVar[ErrorReason]
    UNAVAILABLE: _ClassVar[ErrorReason]
    DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    INTERNAL: _ClassVar[ErrorReason]

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_AUTO: _ClassVar[Format]
    FORMAT_JPEG: _ClassVar[Format]
    FORMAT_PNG: _ClassVar[Format]
    FORMAT_WEBP: _ClassVar[Format]
    FORMAT_TIFF: _ClassVar[Format]

class Metadata(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METADATA_KEEP: _ClassVar[Metadata]
    METADATA_NONE: _ClassVar[Metadata]

class Depth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPTH_AUTO: _ClassVar[Depth]
    DEPTH_8: _ClassVar[Depth]

class Profile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROFILE_SRGB: _ClassVar[Profile]
    PROFILE_KEEP: _ClassVar[Profile]

class Mark(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MARK_NONE: _ClassVar[Mark]
    MARK_VISIBLE: _ClassVar[Mark]

class Look(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOOK_WHOLE: _ClassVar[Look]
    LOOK_FARTHER: _ClassVar[Look]
    LOOK_NEARER: _ClassVar[Look]
ERROR_REASON_UNSPECIFIED: ErrorReason
INVALID_IMAGE: ErrorReason
IMAGE_TOO_LARGE: ErrorReason
UNSUPPORTED_IMAGE: ErrorReason
INVALID_PARAMETER: ErrorReason
UNKNOWN_MODEL: ErrorReason
UNAUTHENTICATED: ErrorReason
OVERLOADED: ErrorReason
UNAVAILABLE: ErrorReason
DEADLINE_EXCEEDED: ErrorReason
INTERNAL: ErrorReason
FORMAT_AUTO: Format
FORMAT_JPEG: Format
FORMAT_PNG: Format
FORMAT_WEBP: Format
FORMAT_TIFF: Format
METADATA_KEEP: Metadata
METADATA_NONE: Metadata
DEPTH_AUTO: Depth
DEPTH_8: Depth
PROFILE_SRGB: Profile
PROFILE_KEEP: Profile
MARK_NONE: Mark
MARK_VISIBLE: Mark
LOOK_WHOLE: Look
LOOK_FARTHER: Look
LOOK_NEARER: Look

class ColorizeRequest(_message.Message):
    __slots__ = ("image", "model", "strength", "format", "quality", "id", "metadata", "depth", "profile", "mark", "edits")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model: str
    strength: float
    format: Format
    quality: int
    id: str
    metadata: Metadata
    depth: Depth
    profile: Profile
    mark: Mark
    edits: Edits
    def __init__(self, image: _Optional[bytes] = ..., model: _Optional[str] = ..., strength: _Optional[float] = ..., format: _Optional[_Union[Format, str]] = ..., quality: _Optional[int] = ..., id: _Optional[str] = ..., metadata: _Optional[_Union[Metadata, str]] = ..., depth: _Optional[_Union[Depth, str]] = ..., profile: _Optional[_Union[Profile, str]] = ..., mark: _Optional[_Union[Mark, str]] = ..., edits: _Optional[_Union[Edits, _Mapping]] = ...) -> None: ...

class Edits(_message.Message):
    __slots__ = ("warmth", "tint", "hints", "palette", "reference", "palette_strength", "look")
    WARMTH_FIELD_NUMBER: _ClassVar[int]
    TINT_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    PALETTE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PALETTE_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    LOOK_FIELD_NUMBER: _ClassVar[int]
    warmth: float
    tint: float
    hints: _containers.RepeatedCompositeFieldContainer[Hint]
    palette: _containers.RepeatedScalarFieldContainer[str]
    reference: bytes
    palette_strength: float
    look: Look
    def __init__(self, warmth: _Optional[float] = ..., tint: _Optional[float] = ..., hints: _Optional[_Iterable[_Union[Hint, _Mapping]]] = ..., palette: _Optional[_Iterable[str]] = ..., reference: _Optional[bytes] = ..., palette_strength: _Optional[float] = ..., look: _Optional[_Union[Look, str]] = ...) -> None: ...

class Hint(_message.Message):
    __slots__ = ("x", "y", "color")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    color: str
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., color: _Optional[str] = ...) -> None: ...

class CandidatesRequest(_message.Message):
    __slots__ = ("image", "model", "strength", "edits", "size", "more_looks")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MORE_LOOKS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model: str
    strength: float
    edits: Edits
    size: int
    more_looks: bool
    def __init__(self, image: _Optional[bytes] = ..., model: _Optional[str] = ..., strength: _Optional[float] = ..., edits: _Optional[_Union[Edits, _Mapping]] = ..., size: _Optional[int] = ..., more_looks: _Optional[bool] = ...) -> None: ...

class CandidatesResponse(_message.Message):
    __slots__ = ("candidates", "model", "request_id", "timings")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    model: str
    request_id: str
    timings: Timings
    def __init__(self, candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("name", "image", "strength", "edits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: bytes
    strength: float
    edits: Edits
    def __init__(self, name: _Optional[str] = ..., image: _Optional[bytes] = ..., strength: _Optional[float] = ..., edits: _Optional[_Union[Edits, _Mapping]] = ...) -> None: ...

class ColorizeResponse(_message.Message):
    __slots__ = ("id", "image", "media_type", "model", "request_id", "timings", "error", "pages", "frames", "dropped")
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: bytes
    media_type: str
    model: str
    request_id: str
    timings: Timings
    error: _status_pb2.Status
    pages: int
    frames: int
    dropped: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., image: _Optional[bytes] = ..., media_type: _Optional[str] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., pages: _Optional[int] = ..., frames: _Optional[int] = ..., dropped: _Optional[_Iterable[str]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "default", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: str
    default: bool
    description: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., default: _Optional[bool] = ..., description: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode", "prepare", "infer", "color", "encode")
    DECODE_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    INFER_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    decode: float
    prepare: float
    infer: float
    color: float
    encode: float
    def __init__(self, decode: _Optional[float] = ..., prepare: _Optional[float] = ..., infer: _Optional[float] = ..., color: _Optional[float] = ..., encode: _Optional[float] = ...) -> None: ...
