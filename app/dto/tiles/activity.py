"""What the server does at the moment, for its own page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from app import __version__
from app.dto.llama.models import STATUS_NAMES, StatusName
from app.dto.shared.base import Reply
from app.services import hub
from app.services.activity import SECONDS
from app.services.downloads.download import Download, DownloadStatus
from app.services.engine.scheduler.meter import Meter
from app.services.estimates.hardware import Hardware
from app.services.facts import GroupFacts
from app.services.model_folder import ModelFolder
from app.services.model_state import Loading, ModelState

ServerStatus = Literal["ok", "loading", "stuck"]


class ActiveModel(Reply, kw_only=True):
    """A model that is served."""

    id: Annotated[str, Meta(description="name of the model in requests")]
    status: Annotated[StatusName, Meta(description="state of the model")]
    progress: Annotated[float | UnsetType, Meta(description="progress of a load under way, 0 to 1")] = UNSET
    error: Annotated[str | UnsetType, Meta(description="why the last load failed")] = UNSET
    context: Annotated[int | UnsetType, Meta(description="tokens that the context holds, while it is loaded")] = UNSET
    parameters: Annotated[int | UnsetType, Meta(description="number of parameters, while it is loaded")] = UNSET
    precision: Annotated[str | UnsetType, Meta(description="precision of the weights, while it is loaded")] = UNSET
    size_bytes: Annotated[int | UnsetType, Meta(description="bytes of the weights, while it is loaded")] = UNSET
    can_remove: Annotated[bool, Meta(description="whether DELETE /models takes it")]

    @classmethod
    def of(cls, state: ModelState) -> "ActiveModel":
        """Describe a model; its numbers are known while it is loaded."""
        facts, status = state.facts, STATUS_NAMES[state.status]
        return cls(
            id=state.id,
            status=status,
            progress=round(state.progress, 3) if status == "loading" else UNSET,
            error=state.error or UNSET,
            context=facts.context.tokens if facts else UNSET,
            parameters=facts.parameters if facts else UNSET,
            precision=facts.precision if facts else UNSET,
            size_bytes=facts.weight_bytes if facts else UNSET,
            can_remove=state.can_remove,
        )


class AvailableModel(Reply, kw_only=True):
    """A model of this machine that the server could be started with."""

    id: Annotated[str, Meta(description="id of the model, as --model takes it")]
    size_bytes: Annotated[int, Meta(description="bytes of the weights")]
    can_remove: Annotated[bool, Meta(description="whether DELETE /models takes it")]

    @classmethod
    def of(cls, model: ModelFolder, downloads: Path) -> "AvailableModel":
        """Describe a model; those in the folder of downloads may be deleted."""
        entry = hub.entry(model.path)
        return cls(
            id=model.id, size_bytes=model.weight_bytes, can_remove=entry is not None and entry.parent == downloads
        )


class ActiveDownload(Reply, kw_only=True):
    """A model that is downloaded, waits for that, or could not be downloaded."""

    id: Annotated[str, Meta(description="name of the model, as it was asked for")]
    status: Annotated[DownloadStatus, Meta(description="whether it waits, is under way, or has failed")]
    done_bytes: Annotated[int, Meta(description="bytes that are there")]
    total_bytes: Annotated[int, Meta(description="bytes of all its files")]
    error: Annotated[str | UnsetType, Meta(description="why it failed")] = UNSET

    @classmethod
    def of(cls, download: Download) -> "ActiveDownload":
        """Say how far a download is."""
        return cls(
            id=download.names[0],
            status=download.status,
            done_bytes=sum(download.present.values()),
            total_bytes=download.plan.total,
            error=download.error or UNSET,
        )


class ActiveMachine(Reply, kw_only=True):
    """One of the machines that serve the model together."""

    host: Annotated[str, Meta(description="its name for ssh")]
    state: Annotated[Literal["waiting", "loading", "ready"], Meta(description="whether it takes part")]

    @classmethod
    def of(cls, group: GroupFacts | None) -> "list[ActiveMachine]":
        """Name the machines, of which there are none where this one is alone."""
        return [cls(host=machine.host, state=machine.state) for machine in group.machines] if group else []


class MemoryUse(Reply, kw_only=True):
    """Memory, in bytes."""

    total_bytes: Annotated[int, Meta(description="bytes of memory of the machine")]
    available_bytes: Annotated[int, Meta(description="bytes of memory that can be taken now")]
    models_bytes: Annotated[int, Meta(description="bytes that MLX holds for weights and caches")]
    prefix_cache_bytes: Annotated[int, Meta(description="bytes of these that the prefix cache holds")]


class CacheUse(Reply, kw_only=True):
    """Tokens of prompts since the server started."""

    prompt_tokens: Annotated[int, Meta(description="tokens of prompts that were computed")]
    cached_tokens: Annotated[int, Meta(description="tokens of prompts that came from the prefix cache")]


class Speed(Reply, kw_only=True):
    """Tokens a second of the last five minutes."""

    interval_seconds: Annotated[int, Meta(description="seconds of each interval")] = SECONDS
    completion_tokens_per_second: Annotated[
        list[float], Meta(description="tokens of answers a second, an item for each interval, the last one last")
    ]
    prompt_tokens_per_second: Annotated[
        list[float], Meta(description="the same of prompts, whose tokens count when a prompt is computed")
    ]


class ActivityReply(Reply, kw_only=True):
    """What the server does."""

    object: Literal["activity"] = "activity"
    version: Annotated[str, Meta(description="version of the server")] = __version__
    status: Annotated[ServerStatus, Meta(description="whether it can work: it may be loading, or the engine hangs")]
    error: Annotated[str | None, Meta(description="why the engine hangs, or why the last load failed")]
    loading: Annotated[str | None, Meta(description="name of the model that all requests wait for")]
    progress: Annotated[float | None, Meta(description="progress of that load, 0 to 1")]
    several: Annotated[bool, Meta(description="whether several models are served, as with --models-dir")]
    by_name: Annotated[bool, Meta(description="whether a request may name any model of this machine to load it")]
    web_ui: Annotated[bool, Meta(description="whether the llama.cpp Web UI is installed and served at /")]
    usage: Annotated[bool, Meta(description="whether what is used is counted, for GET /v1/usage")]
    models: Annotated[list[ActiveModel], Meta(description="the loaded model, or all of several")]
    available: Annotated[
        list[AvailableModel], Meta(description="further models of this machine; empty with --models-dir")
    ]
    downloads: Annotated[list[ActiveDownload], Meta(description="models that are downloaded, or failed to be lately")]
    can_download: Annotated[bool, Meta(description="whether models may be downloaded and deleted through HTTP")]
    running: Annotated[int, Meta(description="requests that are being computed")]
    waiting: Annotated[int, Meta(description="requests that wait for a place in the batch")]
    memory: Annotated[MemoryUse, Meta(description="memory of the machine and of the models")]
    cache: Annotated[CacheUse, Meta(description="how much of prompts came from the prefix cache")]
    speed: Annotated[Speed, Meta(description="how fast the last minutes were")]
    machines: Annotated[
        list[ActiveMachine], Meta(description="the machines of --hostfile, this one first; empty without")
    ]

    @classmethod
    def of(
        cls,
        meter: Meter,
        hardware: Hardware,
        rates: Sequence[tuple[float, float]],
        models: Sequence[ModelState],
        available: Sequence[ModelFolder],
        downloads: Sequence[Download],
        cache: Path,
        *,
        can_download: bool,
        loading: Loading | None,
        stuck: str | None,
        last_error: str | None,
        several: bool,
        by_name: bool,
        web_ui: bool,
        usage: bool,
        group: GroupFacts | None,
    ) -> "ActivityReply":
        """Translate what there is."""
        return cls(
            status="stuck" if stuck else "loading" if loading else "ok",
            error=stuck or last_error,
            loading=loading.model if loading else None,
            progress=round(loading.progress, 3) if loading else None,
            several=several,
            by_name=by_name,
            web_ui=web_ui,
            usage=usage,
            models=[ActiveModel.of(state) for state in models],
            available=[AvailableModel.of(model, cache) for model in available],
            downloads=[ActiveDownload.of(download) for download in downloads],
            can_download=can_download,
            running=meter.running,
            waiting=meter.waiting,
            memory=MemoryUse(
                total_bytes=hardware.total,
                available_bytes=hardware.available,
                models_bytes=hardware.held,
                prefix_cache_bytes=meter.cache_bytes,
            ),
            cache=CacheUse(prompt_tokens=meter.prompt_tokens, cached_tokens=meter.cached_tokens),
            speed=Speed(
                completion_tokens_per_second=[round(answers, 1) for answers, _ in rates],
                prompt_tokens_per_second=[round(prompts, 1) for _, prompts in rates],
            ),
            machines=ActiveMachine.of(group),
        )
