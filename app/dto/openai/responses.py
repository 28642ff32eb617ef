"""OpenAI's Responses: the request."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

import app.services.generation as gen
from app.dto.openai import responses_compaction
from app.dto.openai.chat import EFFORTS, Effort, effort_kwargs
from app.dto.openai.responses_items import InputItem, to_messages
from app.dto.openai.responses_tools import OfferedTool, ResponsesTool, flat_choice, flat_tools
from app.dto.shared import parameters
from app.dto.shared.base import MOST_TOOLS, Body, RequestBody, RequestLimits, few_messages
from app.dto.shared.changing import settled
from app.dto.shared.response_format import ResponseFormat
from app.dto.shared.tool_choice import OpenAIToolChoice, openai_choice
from app.services.errors import InvalidRequest, UnprocessableBody
from app.services.json_schema.enforcement import Binding

T = TypeVar("T")

_LOGPROBS = "message.output_text.logprobs"
_MOST_METADATA = 1024


class ReasoningConfig(Body):
    """How the model should reason."""

    effort: Effort | None = Field(
        default=None, description="`none` turns reasoning off; any other turns it on and bounds its tokens"
    )
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="with any value the reasoning comes as a summary, unshortened"
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="old name of summary"
    )


class TextConfig(Body):
    """What the answer has to be."""

    format: ResponseFormat | None = Field(default=None, description="text, any JSON object, or JSON of a schema")


def _few_entries(metadata: Any) -> Any:
    """Count them before they are looked at; of a field with a length the document would say that it is a list."""
    if isinstance(metadata, dict) and len(metadata) > _MOST_METADATA:
        raise ValueError(f"more than {_MOST_METADATA} entries")
    return metadata


class ResponsesRequest(RequestBody):
    """A conversation to answer."""

    registry = parameters.RESPONSES

    input: Annotated[str | list[InputItem], BeforeValidator(few_messages)] = Field(
        default_factory=list, examples=["Hello!"]
    )
    instructions: str = ""
    model: str | None = None
    stream: bool = False
    max_output_tokens: int | None = Field(default=None, ge=-1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    presence_penalty: float = Field(default=0.0, ge=-100, le=100)
    frequency_penalty: float = Field(default=0.0, ge=-100, le=100)
    tools: list[ResponsesTool] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: OpenAIToolChoice = "auto"
    parallel_tool_calls: bool = True
    tool_call_grammar: gen.ToolCallGrammar | None = None
    reasoning: ReasoningConfig = Field(default_factory=ReasoningConfig)
    text: TextConfig = Field(default_factory=TextConfig, examples=[{"format": {"type": "text"}}])
    metadata: Annotated[dict[str, str], BeforeValidator(_few_entries)] = Field(default_factory=dict)
    store: bool = True
    previous_response_id: str | None = None
    include: list[str] = Field(default_factory=list)
    top_logprobs: int = Field(default=0, ge=0, le=20)
    truncation: Literal["auto", "disabled"] = "disabled"
    return_progress: bool = False
    timings_per_token: bool = False

    @property
    def items(self) -> list[InputItem]:
        """The input as items."""
        return [InputItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def compacts(self) -> bool:
        """Whether a summary of the conversation is wanted in the place of an answer."""
        return bool(self.items) and self.items[-1].type == "compaction_trigger"

    def compacting(self) -> "ResponsesRequest":
        """Give the request for a summary of the same conversation, which comes whole."""
        items = self.items if self.input else []
        return self.model_copy(update={"input": [*items, InputItem(type="compaction_trigger")], "stream": False})

    @property
    def summarizes(self) -> bool:
        """Whether the reasoning is sent as a summary."""
        return (self.reasoning.summary or self.reasoning.generate_summary) is not None

    @property
    def seals_reasoning(self) -> bool:
        """Whether the reasoning is sent sealed too, for clients that give nothing else of it back."""
        return "reasoning.encrypted_content" in self.include

    def extra(self, name: str, kind: type[T]) -> T | None:
        """Give a parameter without effect as it came, None where it is absent or of another type."""
        value = (self.model_extra or {}).get(name)
        return value if isinstance(value, kind) else None

    @property
    def offered_tools(self) -> list[OfferedTool]:
        """The tools that the model gets to know. Raises InvalidRequest for one without a name."""
        return flat_tools(self.tools)

    def to_generation(self, limits: RequestLimits, earlier: Sequence[InputItem] = ()) -> gen.GenerationRequest:
        """Translate to the engine's vocabulary, after what is `earlier`. Raises InvalidRequest for what it refuses."""
        self.refuse()
        if not (self.input or earlier or self.instructions):
            raise UnprocessableBody(
                "input: it may be empty only beside instructions or a previous response", param="input"
            )
        limits.check_messages([*earlier, *self.items], "input")
        request = gen.GenerationRequest(
            image_use=self.image_use,
            model=self.model,
            messages=self._conversation(earlier),
            tools=tuple(tool.to_template() for tool in self.offered_tools),
            template_kwargs=effort_kwargs(self.reasoning.effort),
            sampling=gen.Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                seed=self.seed,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
            ),
            max_tokens=None if self.max_output_tokens == -1 else self.max_output_tokens,
            constraint=self._constraint(),
            logprobs=self._logprobs(),
            effort_budget=EFFORTS.get(self.reasoning.effort or ""),
            tool_choice=self._tool_choice(),
            tool_call_grammar=self.tool_call_grammar,
            delivery=gen.Delivery(self.stream),
        )
        return responses_compaction.summarizing(request) if self.compacts else request

    def _conversation(self, earlier: Sequence[InputItem]) -> tuple[gen.Message, ...]:
        messages = (*to_messages(earlier, self.items), *to_messages(self.items))
        if not messages and not self.instructions:
            raise InvalidRequest("Nothing in the input is text, calls or results for the model to read", param="input")
        if messages and messages[-1].tool_calls:
            call = messages[-1].tool_calls[-1]
            raise InvalidRequest(f"No tool output found for function call {call.id[:64]}", param="input")
        system = (gen.Message("system", self.instructions),) if self.instructions else ()
        return settled((*system, *messages))

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

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer, and its tools."""
        return Binding(self._constraint(), [tool.to_template() for tool in self.offered_tools], self._tool_choice())

    def _tool_choice(self) -> gen.ToolChoice:
        tools = self.offered_tools
        names = [tool.name for tool in tools]
        strict = {tool.name: f"{tool.where}.strict" for tool in tools if tool.tool.strict}
        choice = flat_choice(self.tool_choice, tools)
        return openai_choice(choice, names, strict=strict, parallel=self.parallel_tool_calls)
