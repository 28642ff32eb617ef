"""Events of models, as llama-server sends them to its Web UI."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from app.dto.llama.models import STATUS_NAMES, DownloadedBytes, ModelRow, StatusName
from app.dto.shared.base import Reply
from app.services.model_events import Change, DownloadChange
from app.services.model_state import ModelState, Status

_EXIT_CODES = {Status.UNLOADED: 0, Status.FAILED: 1}
_EVENTS = {
    "load_begins": "model_status",
    "status": "status_change",
    "list_grows": "models_reload",
    "model_goes": "model_remove",
}


class LoadProgress(Reply, kw_only=True):
    """How far a load is."""

    stages: Annotated[list[str], Meta(description="stages of a load; there is one")]
    current: Annotated[str, Meta(description="the stage under way")]
    value: Annotated[float, Meta(description="how much of it is done, 0 to 1")]

    @classmethod
    def of(cls, value: float) -> "LoadProgress":
        """Build it from a progress of 0 to 1; there is one stage."""
        return cls(stages=["text_model"], current="text_model", value=round(value, 3))


class StatusData(Reply, kw_only=True):
    """How a model stands now."""

    status: Annotated[StatusName, Meta(description="state of the model")]
    progress: Annotated[LoadProgress | UnsetType, Meta(description="how far its load is, while it loads")] = UNSET
    info: Annotated[ModelRow | UnsetType, Meta(description="the model as /models lists it, once it is loaded")] = UNSET
    exit_code: Annotated[
        int | UnsetType, Meta(description="0 where it was unloaded, 1 where it could not be loaded")
    ] = UNSET
    error: Annotated[str | UnsetType, Meta(description="why it could not be loaded")] = UNSET

    @classmethod
    def of(cls, state: ModelState) -> "StatusData":
        """Build it from a model's state."""
        name = STATUS_NAMES[state.status]
        failed = state.status is Status.FAILED
        return cls(
            status=name,
            progress=LoadProgress.of(state.progress) if name == "loading" else UNSET,
            info=ModelRow.of(state) if state.status is Status.LOADED else UNSET,
            exit_code=_EXIT_CODES.get(state.status, UNSET),
            error=state.error if failed and state.error else UNSET,
        )


class DownloadData(Reply, kw_only=True):
    """How far a download is."""

    progress: Annotated[dict[str, DownloadedBytes], Meta(description="bytes of each file, by its path in the repo")]
    error: Annotated[str | UnsetType, Meta(description="why it failed")] = UNSET

    @classmethod
    def of(cls, change: DownloadChange) -> "DownloadData":
        """Build it from a change of a download."""
        return cls(progress=DownloadedBytes.of(change.files), error=change.error or UNSET)


class ModelEvent(Reply, kw_only=True):
    """Something happened to a model."""

    model: Annotated[str, Meta(description="id of the model")]
    event: Annotated[
        Literal[
            "model_status",
            "status_change",
            "models_reload",
            "model_remove",
            "download_progress",
            "download_finished",
            "download_failed",
        ],
        Meta(
            description="what happened: a load began, the status changed, the model appeared, or it is gone; "
            "a download has come further, is over, or failed"
        ),
    ]
    data: Annotated[
        StatusData | DownloadData | UnsetType,
        Meta(description="the new state, or the download's; absent where the model appeared or is gone"),
    ] = UNSET

    @classmethod
    def of(cls, change: Change) -> "ModelEvent":
        """Build it from a change of a model's state, or of a download."""
        if isinstance(change, DownloadChange):
            return cls(model=change.name, event=change.kind, data=DownloadData.of(change))
        event = cls(model=change.model.id, event=_EVENTS[change.kind])  # type: ignore[arg-type]
        if change.kind == "load_begins":
            event.data = StatusData(status="loading")
        elif change.kind == "status":
            event.data = StatusData.of(change.model)
        return event
