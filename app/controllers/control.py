"""Control of a streamed answer under way."""

from typing import Annotated

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals
from app.dto.llama.control import ControlReply, ControlRequest
from app.services.active_generations import ActiveGenerations

_REQUEST = [Example(value={"id": "chatcmpl-7d1f9c", "action": "reasoning_end"})]


class ControlController(Controller):
    """Answers under way."""

    tags = ["Streams"]
    opt = {"dialect": "Web UI"}

    @post(
        ["/v1/chat/completions/control", "/chat/completions/control"],
        status_code=200,
        summary="End the reasoning of a streamed answer",
        operation_class=operation({"success": True, "message": "the reasoning ends"}),
        responses=body_refusals(),
    )
    async def control_chat_completion(
        self,
        data: Annotated[ControlRequest, Body(examples=_REQUEST)],
        active_generations: NamedDependency[ActiveGenerations],
    ) -> ControlReply:
        """Have the model of a streamed answer stop thinking and answer; the button "Skip reasoning" does."""
        return ControlReply.of(active_generations.end_reasoning(data.id))
