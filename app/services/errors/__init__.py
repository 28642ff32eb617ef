"""The errors that a client may get: a class for each, with its status, type, code, meaning and advice.

`base` has the root, `AppError`, and a class for each status whose messages differ from case to case. The others stand
by subject: `access`, `requests` that cannot be read, `models`, `downloads`, `generation`, `slots`, what is `stored`,
the `server`.
docs/errors.md is the table of all of them.
"""

from collections.abc import Iterator

from app.services.errors.access import (
    BrowserPage,
    CrossSite,
    TargetForbidden,
    UnknownHost,
    UnknownOrigin,
)
from app.services.errors.base import (
    AppError,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServerError,
    Unauthorized,
    Unavailable,
    UnprocessableBody,
)
from app.services.errors.downloads import (
    DeletionNotConfirmed,
    DiskFull,
    DownloadFailed,
    DownloadForbidden,
    DownloadsForbidden,
    ModelInUse,
)
from app.services.errors.generation import (
    AnswerStopped,
    CallsNotEnforceable,
    GrammarFailed,
    MemoryExceeded,
    MemoryInUse,
    NoCompletions,
    NoEmbeddings,
    NoInfill,
    NoMemoryFolder,
    NoRanking,
    NoSummary,
    OutOfMemory,
    PromptTooLong,
    UnsupportedParameter,
)
from app.services.errors.models import (
    EstimateFailed,
    GroupNotFormed,
    LoadCancelled,
    LoadFailed,
    ModelAlreadyRunning,
    ModelLoading,
    ModelNameMissing,
    ModelNotFound,
    ModelNotLoaded,
    ModelUnloaded,
    NothingLoaded,
)
from app.services.errors.requests import (
    BodyTooLarge,
    CorruptEncoding,
    HeadTooLarge,
    InvalidHttp,
    InvalidImage,
    InvalidJson,
    ReadsTextOnly,
    RequestTimeout,
    TextTooLong,
    TooDeep,
    TooManyValues,
    UnsupportedEncoding,
    UrlTooLong,
)
from app.services.errors.server import (
    Busy,
    EngineFailed,
    EngineStuck,
    FeatureDisabled,
    FeatureForbidden,
    FeatureNotSupported,
    FetchedImagesFull,
    GroupLost,
    ProxyFailed,
    QueueFull,
    ShuttingDown,
)
from app.services.errors.slots import (
    NoSlotAvailable,
    SlotBusy,
    SlotEmpty,
    SlotNotRestored,
    SlotNotWritten,
)
from app.services.errors.stored import (
    ItemNotFound,
    OffsetLost,
    PreviousResponseNotFound,
    ResponseNotFound,
    StreamNotFound,
)

__all__ = [
    "AnswerStopped",
    "AppError",
    "BodyTooLarge",
    "BrowserPage",
    "Busy",
    "CallsNotEnforceable",
    "CorruptEncoding",
    "CrossSite",
    "DeletionNotConfirmed",
    "DiskFull",
    "DownloadFailed",
    "DownloadForbidden",
    "DownloadsForbidden",
    "EngineFailed",
    "EngineStuck",
    "EstimateFailed",
    "FeatureDisabled",
    "FeatureForbidden",
    "FeatureNotSupported",
    "FetchedImagesFull",
    "Forbidden",
    "GrammarFailed",
    "GroupLost",
    "GroupNotFormed",
    "HeadTooLarge",
    "InvalidHttp",
    "InvalidImage",
    "InvalidJson",
    "InvalidRequest",
    "ItemNotFound",
    "LoadCancelled",
    "LoadFailed",
    "MemoryExceeded",
    "MemoryInUse",
    "MethodNotAllowed",
    "ModelAlreadyRunning",
    "ModelInUse",
    "ModelLoading",
    "ModelNameMissing",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelUnloaded",
    "NoCompletions",
    "NoEmbeddings",
    "NoInfill",
    "NoMemoryFolder",
    "NoRanking",
    "NoSlotAvailable",
    "NoSummary",
    "NotFound",
    "NothingLoaded",
    "OffsetLost",
    "OutOfMemory",
    "PreviousResponseNotFound",
    "PromptTooLong",
    "ProxyFailed",
    "QueueFull",
    "ReadsTextOnly",
    "RequestTimeout",
    "ResponseNotFound",
    "ServerError",
    "ShuttingDown",
    "SlotBusy",
    "SlotEmpty",
    "SlotNotRestored",
    "SlotNotWritten",
    "StreamNotFound",
    "TargetForbidden",
    "TextTooLong",
    "TooDeep",
    "TooManyValues",
    "Unauthorized",
    "Unavailable",
    "UnknownHost",
    "UnknownOrigin",
    "UnprocessableBody",
    "UnsupportedEncoding",
    "UnsupportedParameter",
    "UrlTooLong",
]

_BASES = frozenset({AppError, Forbidden, Unavailable})  # only their subclasses are raised


def every_error() -> Iterator[type[AppError]]:
    """Give every class that is raised."""
    for value in globals().values():
        if isinstance(value, type) and issubclass(value, AppError) and value not in _BASES:
            yield value
