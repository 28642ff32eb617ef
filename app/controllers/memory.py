"""Chat completions that are turns of the memory agent."""

from typing import Any

from litestar import Request

from app.controllers.answer import unless_gone
from app.dto.openai.chat import ChatRequest
from app.dto.shared.base import RequestLimits
from app.dto.tiles.memory import to_memory
from app.services.errors import BrowserPage
from app.services.generation import Generation
from app.services.memory.agent import MemoryAgent


async def begin(
    chat: ChatRequest, request: Request[Any, Any, Any], agent: MemoryAgent, limits: RequestLimits
) -> Generation:
    """Begin an answer of the agent. Code that runs, and a wait for another request, end when the client hangs up."""
    refuse_pages(request)
    return await unless_gone(agent.answer(to_memory(chat, limits)), request)


def refuse_pages(request: Request[Any, Any, Any]) -> None:
    """Raise Forbidden for a web page: one on another loopback port could otherwise read the notes."""
    if "origin" in request.headers or "sec-fetch-site" in request.headers:
        raise BrowserPage
