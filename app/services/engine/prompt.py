"""Messages to token ids, through the model's own chat template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from app.services.errors import InvalidRequest, PromptTooLong
from app.services.generation import GenerationRequest, Message, ToolCall

# What a template raises over a conversation that it was not written for.
_REFUSALS = (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits: its tokens, whether it ends inside the model's reasoning, and the grammar of its answer."""

    tokens: list[int]
    thinking: bool
    matcher: Any = None  # llguidance's LLMatcher


class PromptBuilder:
    """Renders and tokenizes for one model. Not safe for two threads at once."""

    def __init__(self, tokenizer: Any, think_start: str | None, context_length: int) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._think_start = think_start
        self._context_length = context_length

    def build(self, request: GenerationRequest) -> Prompt:
        """Raises InvalidRequest for what the template refuses, PromptTooLong for what does not fit."""
        text = self.render(request)
        tokens = self.tokenize(text)
        room = self._context_length - (0 if request.max_tokens == 0 else 1)
        if len(tokens) > room:
            raise PromptTooLong(len(tokens), self._context_length)
        if not tokens:
            raise InvalidRequest("The chat template made an empty prompt of these messages", param="messages")
        return Prompt(tokens, thinking=self._ends_thinking(text, request))

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text."""
        if not self._tokenizer.has_chat_template:
            raise InvalidRequest("This model has no chat template, so it cannot answer a conversation")
        messages = [_templated(message) for message in request.messages]
        try:
            return self._apply(
                messages,
                tools=list(request.tools) or None,
                add_generation_prompt=not request.continue_final_message,
                continue_final_message=request.continue_final_message,
                **request.template_kwargs,
            )
        except _REFUSALS as error:
            raise InvalidRequest(
                f"The model's chat template refuses this conversation: {_line(error)}", param="messages"
            ) from error

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Give the ids of a text; `special` adds what the model wants before and after."""
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def _apply(self, messages: list[dict[str, Any]], **options: Any) -> str:
        # mlx-lm's wrapper would turn thinking on by itself; the default is to be the template's own.
        wrapped = self._tokenizer._chat_template is not None
        renderer = self._tokenizer if wrapped or "enable_thinking" in options else self._tokenizer._tokenizer
        return str(renderer.apply_chat_template(messages, tokenize=False, **options))

    def _ends_thinking(self, text: str, request: GenerationRequest) -> bool:
        if self._think_start is None:
            return False
        if request.continue_final_message:
            last = request.messages[-1]
            return bool(last.reasoning) and not last.content
        return text.rstrip().endswith(self._think_start)


def _templated(message: Message) -> dict[str, Any]:
    """Spell a message as chat templates read it."""
    spelled: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        spelled["reasoning_content"] = message.reasoning
    if message.tool_calls:
        spelled["tool_calls"] = [_templated_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        spelled["tool_call_id"] = message.tool_call_id
    if message.name:
        spelled["name"] = message.name
    return spelled


def _templated_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call.arguments)}}


def _arguments(text: str) -> Mapping[str, Any] | str:
    """Templates want an object; what is none stays as it was written."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
