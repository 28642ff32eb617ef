"""Models that are not downloaded from the Hugging Face hub, or not deleted."""

from app.services.errors.base import AppError, Forbidden, InvalidRequest


class DownloadsForbidden(Forbidden):
    """Models are not downloaded or deleted through HTTP: `--no-downloads`, or no key beyond this machine."""

    code = "downloads_disabled"
    advice = "Use `tiles-server pull` and `rm` on the machine itself, or start the server with `--api-key`."


class DownloadForbidden(Forbidden):
    """The hub gives this model only to those who have accepted its terms."""

    code = "gated_model"
    advice = "Accept the terms on the page of the model, then `hf auth login` on the server's machine."


class DownloadFailed(AppError):
    """A model could not be downloaded, looked up or deleted; `message` says why."""

    status = 502
    kind = "server_error"
    code = "download_failed"
    advice = "Send the request again: a download goes on from where it stopped."


class DiskFull(AppError):
    """The disk has no space for the model that is to be downloaded."""

    status = 507
    kind = "server_error"
    code = "disk_full"
    advice = "Free some disk space, for example with `DELETE /models`."


class DeletionNotConfirmed(InvalidRequest):
    """The model that is to be deleted was not named twice."""

    code = "deletion_not_confirmed"
    advice = "Name the model as `model` in the body and in the header `X-Confirm-Delete`."
    default_message = "To delete a model, name it as model in the body and in the header X-Confirm-Delete"
    default_param = "model"


class ModelInUse(InvalidRequest):
    """The model that is to be deleted is loaded or loading."""

    code = "model_in_use"
    advice = "Unload it with `POST /models/unload` first."
    default_param = "model"
