"""OpenAI's chat completions, with llama.cpp's and Tiles' extras: the request."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

import app.services.generation as gen
from app.dto.openai.chat_message import ChatMessage, Tool
from app.dto.shared import parameters
from app.dto.shared.base import MOST_TOOLS, RequestLimits, continues, few_messages
from app.dto.shared.changing import settled
from app.dto.shared.response_format import ResponseFormat
from app.dto.shared.sampling_fields import SamplingFields, StreamOptions
from app.dto.shared.tool_choice import OpenAIToolChoice, openai_choice
from app.services.errors import InvalidRequest
from app.services.json_schema.enforcement import Binding

# Arguments of the call that renders the template, not of the template.
_NOT_FOR_TEMPLATES = {
    *("self", "messages", "conversation", "tools", "tokenize", "chat_template", "tokenizer_kwargs"),
    *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
    *("return_dict", "return_tensors", "return_assistant_tokens_mask"),
}

# Tokens of reasoning for an effort.
EFFORTS = {"none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192, "xhigh": None, "max": None}
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# What templates with levels of effort know.
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def effort_kwargs(effort: Effort | None) -> dict[str, Any]:
    """Give the variables of the chat template for an effort."""
    if effort is None:
        return {}
    if effort == "none":
        return {"enable_thinking": False}
    return {"enable_thinking": True, "reasoning_effort": _LEVELS[effort]}


class ChatRequest(SamplingFields):
    """A conversation to answer."""

    registry = parameters.CHAT

    messages: Annotated[list[ChatMessage], BeforeValidator(few_messages)] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    tools: list[Tool] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: OpenAIToolChoice = "auto"
    parallel_tool_calls: bool = True
    tool_call_grammar: gen.ToolCallGrammar | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, examples=[{"enable_thinking": True}])
    reasoning_format: Literal["auto", "none", "deepseek", "deepseek-legacy"] = "auto"
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    reasoning_control: bool = False
    thinking_budget_tokens: int | None = Field(default=None, ge=-1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    input: str | None = None
    chat_start: bool | None = None
    python_code: str = ""
    n: int = Field(default=1, ge=1, le=8)
    return_timing: bool = False

    @field_validator("chat_template_kwargs")
    @classmethod
    def _own_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if wrong := sorted(_NOT_FOR_TEMPLATES & kwargs.keys()):
            raise ValueError(f"'{wrong[0]}' is not for the caller to set")
        if not isinstance(kwargs.get("enable_thinking", True), bool):
            raise ValueError("'enable_thinking' is true or false")
        return kwargs

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def offered_tools(self) -> list[Tool]:
        """The tools that the model gets to know."""
        return [tool for tool in self.tools if tool.is_ours]

    @property
    def custom_tools(self) -> frozenset[str]:
        """The names of the tools that are called with free text."""
        return frozenset(tool.name for tool in self.tools if tool.type == "custom")

    def to_generation(self, limits: RequestLimits) -> gen.GenerationRequest:
        """Translate to the engine's vocabulary. Raises InvalidRequest for what cannot be done."""
        self.check(limits)
        limits.check_messages(self.messages, "messages")
        messages = tuple(
            message.to_message(index, self.messages[index - 1] if index else None)
            for index, message in enumerate(self.messages)
        )
        return gen.GenerationRequest(
            image_use=self.image_use,
            model=self.model,
            messages=settled(messages),
            tools=tuple(tool.to_template() for tool in self.offered_tools),
            template_kwargs=self._template_kwargs(),
            continue_final_message=self._continues(messages[-1]),
            generation_prompt=self.add_generation_prompt,
            sampling=self.sampling(),
            lora=self.adapters(),
            answers=self.n,
            max_tokens=self.token_limit(),
            stop=self.stop_strings,
            slot=self.slot,
            ignore_eos=self.ignore_eos,
            constraint=self._constraint(),
            logprobs=self._logprobs(),
            thinking_budget=None if self.thinking_budget_tokens == -1 else self.thinking_budget_tokens,
            effort_budget=self._effort_budget(),
            tool_choice=self._tool_choice(),
            tool_call_grammar=self.tool_call_grammar,
            split_reasoning=self.reasoning_format != "none",
            delivery=self.delivery,
        )

    def answer_prefix(self) -> gen.Completion:
        """What stands already: the answer that is gone on with, or nothing."""
        last = self.messages[-1]
        if last.role != "assistant":
            return gen.Completion()
        message = last.to_message(len(self.messages) - 1)
        return gen.Completion(text=message.content, reasoning=message.reasoning or "")

    def _continues(self, last: gen.Message) -> bool:
        asks_prompt = self.add_generation_prompt and "add_generation_prompt" in self.model_fields_set
        if self.continue_final_message and asks_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other", param="continue_final_message"
            )
        if self.continue_final_message and last.role != "assistant":
            raise InvalidRequest("the last message is not the assistant's", param="continue_final_message")
        return continues(last)

    def _constraint(self) -> gen.Constraint | None:
        constraint = self.constraint()
        if constraint and self.offered_tools and self.tool_choice != "none" and constraint.kind != "json_schema":
            raise InvalidRequest(f"{constraint.param} and tools exclude each other", param=constraint.param)
        return constraint

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer, and its tools."""
        return Binding(self.constraint(), [tool.to_template() for tool in self.offered_tools], self._tool_choice())

    def _constraints(self) -> Iterator[gen.Constraint]:
        if self.response_format and (constraint := self.response_format.to_constraint()):
            yield constraint
        yield from super()._constraints()

    def _logprobs(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs")
        return self.top_logprobs if self.logprobs else None

    def _template_kwargs(self) -> dict[str, Any]:
        return effort_kwargs(self.reasoning_effort) | self.chat_template_kwargs

    def _effort_budget(self) -> int | None:
        if self.thinking_budget_tokens is not None or self.reasoning_effort is None:
            return None
        return EFFORTS[self.reasoning_effort]

    def _tool_choice(self) -> gen.ToolChoice:
        strict = {
            tool.name: f"tools.{index}.function.strict"
            for index, tool in enumerate(self.tools)
            if tool.type == "function" and tool.function is not None and tool.function.strict
        }
        names = [tool.name for tool in self.offered_tools]
        return openai_choice(self.tool_choice, names, strict=strict, parallel=self.parallel_tool_calls)
