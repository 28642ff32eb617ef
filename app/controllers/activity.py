"""What the server does at the moment."""

from litestar import Controller, get
from litestar.di import NamedDependency

from app.controllers.openapi import operation
from app.controllers.refusals import refusals
from app.dto.tiles.activity import ActivityReply
from app.services.activity import Activity
from app.services.available_models import AvailableModels
from app.services.downloads.service import Downloads
from app.services.model_service import ModelService
from app.services.ui.folder import is_built
from app.settings import Settings

_EXAMPLE = {
    "object": "activity",
    "version": "0.1.0",
    "status": "ok",
    "error": None,
    "loading": None,
    "progress": None,
    "several": False,
    "by_name": False,
    "web_ui": False,
    "usage": True,
    "machines": [],
    "models": [
        {
            "id": "tiles-nano",
            "status": "loaded",
            "context": 8192,
            "parameters": 262144,
            "precision": "float32",
            "size_bytes": 1048576,
            "can_remove": False,
        }
    ],
    "available": [{"id": "mlx-community/Qwen3-4B-4bit", "size_bytes": 2263022529, "can_remove": True}],
    "downloads": [
        {
            "id": "mlx-community/gemma-3-270m-it-4bit",
            "status": "downloading",
            "done_bytes": 41943040,
            "total_bytes": 185597952,
        }
    ],
    "can_download": True,
    "running": 1,
    "waiting": 0,
    "memory": {
        "total_bytes": 51539607552,
        "available_bytes": 30064771072,
        "models_bytes": 1363148800,
        "prefix_cache_bytes": 4194304,
    },
    "cache": {"prompt_tokens": 1024, "cached_tokens": 3072},
    "speed": {
        "interval_seconds": 2,
        "completion_tokens_per_second": [0.0, 187.5, 203.5],
        "prompt_tokens_per_second": [12.0, 0.0, 0.0],
    },
}


class ActivityController(Controller):
    """What the page at / shows."""

    tags = ["Operations"]
    opt = {"dialect": "Health"}

    @get(
        "/v1/activity",
        summary="Read what the server does",
        operation_class=operation(_EXAMPLE),
        responses=refusals(),
    )
    async def read_activity(
        self,
        model_service: NamedDependency[ModelService],
        activity: NamedDependency[Activity],
        available_models: NamedDependency[AvailableModels],
        downloads: NamedDependency[Downloads],
        settings: NamedDependency[Settings],
    ) -> ActivityReply:
        """Give the models, the queue, the memory, and the tokens per second of the last five minutes.

        It answers while a model loads, too. To ask changes nothing, unlike `/metrics`, whose rates begin anew.
        """
        models, several = model_service.models, settings.models_dir is not None
        return ActivityReply.of(
            model_service.meter,
            model_service.hardware(),
            activity.rates(),
            downloads.without(await models.states()) if models.loading is None else [],
            [] if several else await available_models.list(),
            downloads.all,
            downloads.cache,
            can_download=downloads.refusal is None,
            loading=models.loading,
            stuck=model_service.stuck.message if model_service.stuck else None,
            last_error=model_service.last_error,
            several=several,
            by_name=settings.load_by_name,
            web_ui=is_built(settings.ui_folder),
            usage=settings.usage,
            group=model_service.group,
        )
