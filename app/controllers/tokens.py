"""Text to tokens and back, and what a conversation becomes before it is answered."""

import asyncio
from typing import Annotated

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import header
from app.controllers.openapi import operation
from app.controllers.refusals import IMAGE, MODEL, body_refusals
from app.dto.llama.tokens import (
    Detokenized,
    DetokenizeRequest,
    InputTokens,
    TemplatedPrompt,
    TokenizeRequest,
    Tokens,
)
from app.dto.openai.chat import ChatRequest
from app.dto.shared.base import RequestLimits
from app.services.errors import NoCompletions, UnsupportedParameter
from app.services.model_service import ModelService

_CHAT = [Example(value={"messages": [{"role": "user", "content": "What is the capital of Norway?"}]})]
_TOKENIZE = [
    Example(summary="A text", value={"content": "Hello world"}),
    Example(summary="With the text of every token", value={"content": "Hello 😀", "with_pieces": True}),
]
_REFUSALS = body_refusals(*MODEL, IMAGE, UnsupportedParameter("parse_special"), NoCompletions("all-MiniLM-L6-v2"))


class TokensController(Controller):
    """Tokens."""

    tags = ["Tokens"]
    opt = {"dialect": "llama.cpp"}

    @post(
        "/tokenize",
        status_code=200,
        summary="Turn text into tokens",
        operation_class=operation({"tokens": [1528, 223, 1022]}),
        responses=_REFUSALS,
    )
    async def tokenize_text(
        self,
        data: Annotated[TokenizeRequest, Body(examples=_TOKENIZE)],
        model_service: NamedDependency[ModelService],
    ) -> Response[Tokens]:
        """Give the token ids of a text."""
        async with model_service.models.using(data.model) as model:
            tokens = await model.tokenize(data.parts(), special=data.add_special)
        reply = await asyncio.to_thread(Tokens.of, tokens, data)  # there may be some 100,000
        return Response(reply, headers=header(data.ignored))

    @post(
        "/detokenize",
        status_code=200,
        summary="Turn tokens into text",
        operation_class=operation({"content": "Hello world"}),
        responses=_REFUSALS,
    )
    async def detokenize_tokens(
        self,
        data: Annotated[DetokenizeRequest, Body(examples=[Example(value={"tokens": [1528, 223, 1022]})])],
        model_service: NamedDependency[ModelService],
    ) -> Response[Detokenized]:
        """Give the text of token ids; control tokens are written out."""
        async with model_service.models.using(data.model) as model:
            content = await model.detokenize(data.tokens)
        return Response(Detokenized(content=content), headers=header(data.ignored))

    @post(
        "/apply-template",
        status_code=200,
        summary="Apply the chat template",
        operation_class=operation({"prompt": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"}),
        responses=_REFUSALS,
    )
    async def apply_template(
        self,
        data: Annotated[ChatRequest, Body(examples=_CHAT)],
        model_service: NamedDependency[ModelService],
        limits: NamedDependency[RequestLimits],
    ) -> Response[TemplatedPrompt]:
        """Give the prompt that the chat template makes of a conversation. It takes what chat completions take."""
        prompt_request = data.to_generation(limits)
        async with model_service.models.using(prompt_request.model) as model:
            prompt = await model.render(prompt_request)
        return Response(TemplatedPrompt(prompt=prompt), headers=header(data.ignored))

    @post(
        ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"],
        status_code=200,
        summary="Count the tokens of a chat",
        operation_class=operation({"input_tokens": 15, "object": "response.input_tokens"}),
        responses=_REFUSALS,
    )
    async def count_input_tokens(
        self,
        data: Annotated[ChatRequest, Body(examples=_CHAT)],
        model_service: NamedDependency[ModelService],
        limits: NamedDependency[RequestLimits],
    ) -> Response[InputTokens]:
        """Count the tokens of a conversation. It takes what chat completions take, also one that is too long."""
        prompt_request = data.to_generation(limits)
        async with model_service.models.using(prompt_request.model) as model:
            count = await model.count(prompt_request)
        return Response(InputTokens(input_tokens=count), headers=header(data.ignored))
