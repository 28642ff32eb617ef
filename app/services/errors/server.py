"""The server itself: busy, stuck, shutting down, and what is turned off on purpose."""

from app.services.errors.base import AppError, Forbidden, NotFound, ServerError, Unavailable


class Busy(Unavailable):
    """Too many connections are open, or too many large bodies are being read."""

    code = "busy"


class QueueFull(Busy):
    """More requests wait than `--max-queue`; `Retry-After` is how long the oldest running one has taken so far."""

    def __init__(self, waiting: int, *, retry_after: int = 1) -> None:
        super().__init__(f"Too many requests are waiting ({waiting}); try again soon", retry_after=retry_after)


class FetchedImagesFull(Busy):
    """The images that requests have by URL take as much memory together as they may."""

    default_message = "The images that are fetched for all requests take too much memory together; try again soon"


class ShuttingDown(Unavailable):
    """The server is shutting down."""

    code = "shutting_down"
    advice = "Try again when it has been started anew."
    default_message = "The server is shutting down"


class EngineStuck(Unavailable):
    """A step of the engine takes longer than `--watchdog-seconds`; the server restarts itself."""

    code = "engine_stuck"


class EngineFailed(ServerError):
    """The engine failed on this request; see the log."""

    code = "engine_error"
    default_message = "The engine failed while computing this answer"


class FeatureForbidden(Forbidden):
    """A feature of llama-server that is left out, or off: tools and the proxy of the Web UI without `--mcp-config`."""

    code = "feature_disabled"
    advice = "Nothing; clients do without it."


class FeatureDisabled(NotFound):
    """A feature that was not turned on, or is off: numbers of use with `--usage off`."""

    code = "feature_disabled"
    advice = "Start the server without the flag that `message` names."


class ProxyFailed(AppError):
    """The server behind the proxy of the Web UI has no answer that can be passed on; `message` says why."""

    status = 502
    kind = "server_error"
    code = "proxy_failed"
    advice = "Look whether that server runs and has this address."


class FeatureNotSupported(AppError):
    """What another server with this API does and this one does not."""

    status = 501
    kind = "not_supported_error"
    code = "feature_disabled"
    advice = "See `message`; models are downloaded with `POST /models` or `tiles-server pull`."


class GroupLost(Unavailable):
    """One of the machines that serve the model together is gone or silent; the server starts all of them anew."""

    code = "group_lost"
    default_message = "One of the machines that serve this model is gone"
