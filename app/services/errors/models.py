"""Models that are unknown, not loaded, or that do not load."""

from app.services.errors.base import AppError, InvalidRequest, NotFound, ServerError, Unavailable


class ModelNotLoaded(InvalidRequest):
    """The model that the request names is not loaded."""

    code = "model_not_loaded"
    advice = "Load it with `POST /models/load`, or leave out `autoload=false`."
    default_message = "model is not loaded"
    default_param = "model"


class NothingLoaded(InvalidRequest):
    """No model is loaded and none is loading."""

    code = "model_not_loaded"
    advice = "Load one: `POST /start`, `/models/load`, `--model` or `--demo`."
    default_message = "No model is loaded. Load one with POST /start, or start the server with --model or --demo."


class ModelNotFound(NotFound):
    """There is no model of that name."""

    code = "model_not_found"
    advice = "Use an `id` of `GET /v1/models`."
    default_param = "model"


class ModelNameMissing(InvalidRequest):
    """The request names no model, and the server has several."""

    code = "model_missing"
    advice = "Name an `id` of `GET /v1/models` as `model`."
    default_message = "model name is missing from the request"
    default_param = "model"


class ModelAlreadyRunning(InvalidRequest):
    """The model that is to be loaded is loaded or loading already."""

    code = "model_already_running"
    advice = "Use it."
    default_message = "model is already running"
    default_param = "model"


class LoadCancelled(InvalidRequest):
    """The load of the model that the request waited for was cancelled."""

    code = "load_cancelled"
    advice = "Send the request again to load the model anew."
    default_message = "The load of the model was cancelled"
    default_param = "model"


class EstimateFailed(AppError):
    """How much memory a model would take cannot be told; `message` says why."""

    status = 502
    kind = "server_error"
    code = "estimate_failed"
    advice = "Give the https address of a whole GGUF file, or name a model of this machine."


class LoadFailed(ServerError):
    """The model cannot be loaded; `message` says which file is wrong and how."""

    code = "model_load_failed"
    advice = "Download the model again; `tiles-server doctor` checks it."


class GroupNotFormed(LoadFailed):
    """The machines of `--hostfile` cannot be brought together; `message` says which one is the matter."""

    code = "group_not_formed"
    advice = "Mend what `message` names; the server goes on trying."


class ModelLoading(Unavailable):
    """The model is still loading; `Retry-After` is an estimate."""

    code = "loading"
    default_message = "Loading model"


class ModelUnloaded(Unavailable):
    """The model was unloaded before or while it answered."""

    code = "model_unloaded"
    advice = "Send the request again."
    default_message = "The model was unloaded while it answered"
