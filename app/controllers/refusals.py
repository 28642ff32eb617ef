"""The errors that an operation of the OpenAPI document can answer with, an example each."""

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from app.controllers.openapi import Verbatim
from app.dto.shared.errors import AnthropicErrorReply, ErrorReply, OllamaErrorReply
from app.services.errors import (
    AppError,
    BodyTooLarge,
    Busy,
    CorruptEncoding,
    CrossSite,
    EngineFailed,
    EngineStuck,
    GrammarFailed,
    GroupLost,
    GroupNotFormed,
    InvalidImage,
    InvalidJson,
    InvalidRequest,
    LoadCancelled,
    LoadFailed,
    MemoryExceeded,
    MemoryInUse,
    ModelLoading,
    ModelNameMissing,
    ModelNotFound,
    ModelNotLoaded,
    ModelUnloaded,
    NoCompletions,
    NoEmbeddings,
    NoRanking,
    NothingLoaded,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    RequestTimeout,
    ServerError,
    ShuttingDown,
    TextTooLong,
    TooDeep,
    TooManyValues,
    Unauthorized,
    UnknownHost,
    UnknownOrigin,
    UnprocessableBody,
    UnsupportedEncoding,
)

# Of every operation. What is refused before a route is known stands in docs/errors.md alone.
_EVERYWHERE = (
    Unauthorized(),
    UnknownHost(),
    UnknownOrigin(),
    CrossSite(),
    ServerError(),
    ShuttingDown(),
    Busy("This server has as many connections as it can hold"),
)
_OF_BODIES = (
    UnprocessableBody("messages: Field required", param="messages"),
    InvalidJson("The body has to be a JSON object"),
    CorruptEncoding("The body is not the gzip that its Content-Encoding says: it ends too early"),
    TooDeep("The body nests deeper than 64 levels"),
    TooManyValues("The body has more than 500000 values; --max-values raises the limit"),
    RequestTimeout("The body came too slowly"),
    BodyTooLarge(100 * 2**20),
    UnsupportedEncoding("zstd"),
)
_OF_QUERIES = (UnprocessableBody("limit: Expected `int`, got `str`", param="limit"),)

UNKNOWN_MODEL = ModelNotFound("model 'x' not found; those that are here: 'tiles-nano'")
STUCK = EngineStuck("The engine has not come back from a step for 61 s")
GROUP_LOST = GroupLost("Machine 2 of 2 (studio) is gone: silent for 10 s")
GROUP_NOT_FORMED = GroupNotFormed("Machine 2 of 2 (studio) has mlx 0.32.3, this machine 0.32.4")
LOAD_FAILED = LoadFailed("model.safetensors is cut short: 1024 bytes are missing")
IMAGE = InvalidImage("the image cannot be decoded: image file is truncated", param="messages.0.content.1")
# Of an operation that looks at a model without loading it; of one that loads it if need be; of one that computes.
LOADED_MODEL = (
    NothingLoaded(),
    ModelNotLoaded(),
    ModelNameMissing(),
    UNKNOWN_MODEL,
    ModelLoading(),
    STUCK,
    GROUP_LOST,
)
MODEL = (
    *LOADED_MODEL,
    LoadCancelled(),
    LOAD_FAILED,
    GROUP_NOT_FORMED,
    ModelUnloaded(),
    QueueFull(256),
    TextTooLong("prompt: a text of 9000000 characters; this server tokenizes 4194304 in one request", param="prompt"),
)
_COMPUTATION = (
    *MODEL,
    PromptTooLong(9000, 8192),
    MemoryExceeded(
        "This prompt has 8000 tokens and needs 3.2 GB of memory for its cache; beside the model there are 1.1 GB. "
        "Shorten it, or see --max-memory."
    ),
    MemoryInUse(
        "This prompt has 8000 tokens and needs 3.2 GB of memory for its cache; 1.1 GB are free. "
        "Something else on this machine uses the rest."
    ),
    OutOfMemory(),
    EngineFailed(),
)
GENERATION = (
    *_COMPUTATION,
    GrammarFailed(),
    NoCompletions("all-MiniLM-L6-v2"),
)
EMBEDDING = (
    *_COMPUTATION,
    NoEmbeddings(),
    InvalidRequest("dimensions: this model's vectors have 256", param="dimensions"),
)
RANKING = (
    *_COMPUTATION,
    NoRanking("all-MiniLM-L6-v2 turns texts into vectors, and cannot rank documents"),
    PromptTooLong(9000, 512, text="documents[3]"),
)

DECISION = (*GENERATION, InvalidRequest("questions.0: an option is empty", param="questions.0"))

Envelope = type[ErrorReply] | type[AnthropicErrorReply] | type[OllamaErrorReply]


def refusals(*errors: AppError, envelope: Envelope = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation, besides those of every one."""
    by_status: dict[int, list[AppError]] = {}
    for error in (*errors, *_EVERYWHERE):
        by_status.setdefault(error.status, []).append(error)
    return {status: _response(by_status[status], envelope) for status in sorted(by_status)}


def body_refusals(*errors: AppError, envelope: Envelope = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation that takes a body."""
    return refusals(*errors, *_OF_BODIES, envelope=envelope)


def query_refusals(*errors: AppError, envelope: Envelope = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation that takes parameters in its URL."""
    return refusals(*errors, *_OF_QUERIES, envelope=envelope)


def _response(errors: list[AppError], envelope: Envelope) -> ResponseSpec:
    examples = [
        Example(summary=error.message[:60], value=Verbatim(msgspec.to_builtins(envelope.of(error)))) for error in errors
    ]
    codes = dict.fromkeys(error.code for error in errors if error.code and envelope is ErrorReply)  # others have none
    description = f"{errors[0].kind}: {', '.join(codes)}" if codes else errors[0].kind
    return ResponseSpec(envelope, description=description, generate_examples=False, examples=examples)
