"""OpenAI's Responses: what clients send."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

import app.services.generation as gen
from app.dto import parameters
from app.dto.base import MOST_TOOLS, Body, Limits, RequestBody, few_messages
from app.dto.openai_chat import EFFORTS
from app.dto.openai_responses_items import InputItem, to_messages
from app.dto.response_format import ResponseFormat
from app.dto.tool_choice import DESCRIPTION, Asked, openai_choice
from app.services.errors import InvalidRequest, UnsupportedParameter
from app.services.json_schema.enforcement import Binding

_LOGPROBS = "message.output_text.logprobs"
# What templates with levels know; the others only think or do not.
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


class ResponsesTool(Body):
    """A tool that the model may use."""

    type: str = Field(examples=["function"])
    name: str | None = Field(default=None, min_length=1, max_length=256)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict, description="JSON schema of the arguments")
    strict: bool = False

    def to_template(self, place: int) -> dict[str, Any]:
        """Spell it as chat templates read it. Raises InvalidRequest."""
        if self.type != "function":
            raise UnsupportedParameter(f"tools.{place}.type", f"of '{self.type[:64]}' is no tool of this server")
        if self.name is None:
            raise InvalidRequest("a function needs 'name'", param=f"tools.{place}.name")
        return {"type": "function", "function": self.model_dump(include={"name", "description", "parameters"})}


class Reasoning(Body):
    """How to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(default=None, description="of old: summary")


class TextConfig(Body):
    """What the answer has to be."""

    format: ResponseFormat | None = None


class ResponsesRequest(RequestBody):
    """A conversation to be answered."""

    registry = parameters.RESPONSES

    input: Annotated[str | list[InputItem], BeforeValidator(few_messages)] = Field(min_length=1, examples=["Hello!"])
    instructions: str = ""
    model: str | None = Field(default=None, description="any name is answered, unless there are several models")
    stream: bool = False
    max_output_tokens: int | None = Field(default=None, ge=-1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    tools: list[ResponsesTool] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: Asked = Field(default="auto", description=DESCRIPTION)
    parallel_tool_calls: bool = True
    reasoning: Reasoning = Field(default_factory=Reasoning)
    text: TextConfig = Field(default_factory=TextConfig, examples=[{"format": {"type": "text"}}])
    metadata: dict[str, str] = Field(default_factory=dict, max_length=1024)
    store: bool = True
    previous_response_id: str | None = None
    include: list[str] = Field(default_factory=list)
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @property
    def items(self) -> list[InputItem]:
        """The input as items."""
        return [InputItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def summarizes(self) -> bool:
        """Whether thoughts are to come as a summary."""
        return (self.reasoning.summary or self.reasoning.generate_summary) is not None

    def to_generation(self, limits: Limits, earlier: Sequence[InputItem] = ()) -> gen.GenerationRequest:
        """Say it in the common vocabulary, after what was said earlier. Raises InvalidRequest for what cannot be."""
        self.refuse()
        limits.check_messages([*earlier, *self.items], "input")
        return gen.GenerationRequest(
            model=self.model,
            messages=self._conversation(earlier),
            tools=tuple(tool.to_template(place) for place, tool in enumerate(self.tools)),
            template_kwargs=self._template_kwargs(),
            sampling=gen.Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.seed),
            max_tokens=None if self.max_output_tokens == -1 else self.max_output_tokens,
            constraint=self._constraint(),
            logprobs=self._logprobs(),
            thinking_budget=EFFORTS.get(self.reasoning.effort or ""),
            tool_choice=self._tool_choice(),
            delivery=gen.Delivery(self.stream),
        )

    def _conversation(self, earlier: Sequence[InputItem]) -> tuple[gen.Message, ...]:
        messages = (*to_messages(earlier), *to_messages(self.items))
        if messages[-1].tool_calls:
            call = messages[-1].tool_calls[-1]
            raise InvalidRequest(f"No tool output found for function call {call.id[:64]}", param="input")
        told = (gen.Message("system", self.instructions),) if self.instructions else ()
        return (*told, *messages)

    def _template_kwargs(self) -> dict[str, Any]:
        effort = self.reasoning.effort
        if effort is None:
            return {}
        if effort == "none":
            return {"enable_thinking": False}
        return {"enable_thinking": True, "reasoning_effort": _LEVELS[effort]}

    def _constraint(self) -> gen.Constraint | None:
        constraint = self.text.format.to_constraint() if self.text.format else None
        if constraint is None:
            return None
        return replace(constraint, param="text.format")

    def _logprobs(self) -> int | None:
        if _LOGPROBS in self.include:
            return self.top_logprobs
        if self.top_logprobs:
            raise InvalidRequest(f"top_logprobs needs {_LOGPROBS} in include", param="top_logprobs")
        return None

    def binding(self) -> Binding:
        """Give the grammar of the answer, and its tools."""
        tools = [tool.to_template(place) for place, tool in enumerate(self.tools)]
        return Binding(self._constraint(), tools, self._tool_choice())

    def _tool_choice(self) -> gen.ToolChoice:
        names = [tool.name or "" for tool in self.tools]
        strict = {tool.name or "": f"tools.{place}.strict" for place, tool in enumerate(self.tools) if tool.strict}
        return openai_choice(self.tool_choice, names, strict=strict, parallel=self.parallel_tool_calls)
