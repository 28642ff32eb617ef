"""Properties of the server and its model."""

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency

from app.controllers.openapi import operation, refusals
from app.dto.models import Props
from app.services.errors import Unavailable
from app.services.model_service import ModelService
from app.settings import Settings

_LOADING = Unavailable("Loading model", code="loading")
_EXAMPLE = msgspec.to_builtins(Props.of(None, 32))


class PropsController(Controller):
    """Properties, as llama-server gives them."""

    tags = ["Models"]

    @get("/props", operation_class=operation(_EXAMPLE), responses=refusals(_LOADING))
    async def read_props(
        self, model_service: NamedDependency[ModelService], settings: NamedDependency[Settings]
    ) -> Props:
        """Tell the context, the sampling that is used by default, and the chat template."""
        model_service.require_no_load()
        return Props.of(model_service.facts, settings.max_batch, settings.ui_settings)
