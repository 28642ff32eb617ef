"""Properties of the server and its model."""

from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from app.controllers.openapi import ModelName, operation
from app.controllers.refusals import MODEL, query_refusals
from app.dto.llama.models import Props, RouterProps
from app.services.facts import RouterFacts
from app.services.model_service import ModelService
from app.settings import Settings

_EXAMPLE = msgspec.to_builtins(Props.of(None, 32))


class PropsController(Controller):
    """Properties, as llama-server gives them."""

    tags = ["Models"]
    opt = {"dialect": "Models"}

    @get(
        "/props",
        summary="Read the properties of server and model",
        operation_class=operation(_EXAMPLE),
        responses=query_refusals(*MODEL),
    )
    async def read_props(
        self,
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        model: ModelName = None,
        autoload: Annotated[bool, QueryParameter(description="load the model if it is not in memory")] = True,
    ) -> Props | RouterProps:
        """Give the context length, the default sampling, and the chat template.

        With --models-dir those of the named model, which is loaded for that unless `autoload` is false, and without a
        name what kind of server this is. One model has its own, by whatever name.
        """
        facts = await model_service.models.props(model, autoload=autoload)
        has_proxy = settings.mcp_config is not None
        if isinstance(facts, RouterFacts):
            return RouterProps.of(facts, settings.ui_settings, has_proxy=has_proxy)
        group = model_service.group
        return Props.of(facts, settings.max_batch, settings.ui_settings, has_proxy=has_proxy, group=group)
