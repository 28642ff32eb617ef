"""Anthropic's Messages: the request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

import app.services.generation as gen
from app.dto.shared import parameters
from app.dto.shared.base import (
    MOST_TOOLS,
    Body,
    RequestBody,
    RequestLimits,
    Typed,
    continues,
    few_messages,
    json_text,
    no_empty_stop,
)
from app.dto.shared.changing import is_counter, settled, without_changing
from app.dto.shared.readable import MEDIA, as_text, document_text, image_source, media_in, read, with_parts
from app.dto.shared.response_format import ResponseFormat
from app.dto.shared.sealed import unseal
from app.dto.shared.tool_choice import tool_choice
from app.services.errors import InvalidRequest
from app.services.json_schema.enforcement import Binding

_LEVELS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}  # of effort, for templates
_KINDS = frozenset({"text", "thinking", "tool_use", "tool_result"})
# They say nothing to a model: what only its maker can read, what a program asks a server for.
_SILENT = frozenset(
    {
        *("redacted_thinking", "advisor_redacted_result", "container_upload", "fallback"),
        *("tool_addition", "tool_removal", "mcp_tool_listing"),
    }
)


class ContentBlock(Typed):
    """A piece of a message. What it carries depends on its type."""

    kinds: ClassVar = _KINDS

    type: str = Field(
        examples=["text"],
        description="text, thinking, tool_use or tool_result; others are read where there is text in them",
    )
    text: str | None = Field(default=None, description="the text, in a block of type text")
    thinking: str | None = Field(default=None, description="the reasoning of an earlier answer, in a thinking block")
    signature: str | None = Field(
        default=None, description="signature of a thinking block: the reasoning, where the answer was to leave it out"
    )
    id: str | None = Field(default=None, description="id of the call, in a tool_use block")
    name: str | None = Field(default=None, description="name of the tool, in a tool_use block")
    input: Any = Field(
        default=None, description="of a tool_use block: the arguments, an object; other values are taken too"
    )
    tool_use_id: str | None = Field(default=None, description="the call that a tool_result block answers")
    content: "str | list[ContentBlock] | None" = Field(
        default=None, description="what came of the call, in a tool_result block"
    )
    is_error: bool = Field(default=False, description="whether the call failed, in a tool_result block")

    @property
    def left_out(self) -> Iterable[str]:
        """What of a block of another type the model does not get to read."""
        if self._call_name is not None:
            return ()
        return tuple(media_in({"type": self.type} | self.fields)) if self.words else (self.type,)

    @property
    def words(self) -> str:
        """What a block of another type says: a sentence in the place of images, nothing where it is mute."""
        return "" if self.type in _SILENT else read({"type": self.type} | self.fields)

    def as_ours(self) -> "ContentBlock":
        """Take the calls of tools that a server runs, and what came of them, for any other tool's."""
        if self._call_name is not None:
            arguments = self.fields.get("input")
            return ContentBlock.model_construct(
                type="tool_use", id=self._id("id"), name=self._call_name, input=arguments
            )
        if self.type.endswith("_tool_result") and self._id("tool_use_id"):
            return ContentBlock.model_construct(
                type="tool_result",
                tool_use_id=self._id("tool_use_id"),
                content=read(self.fields.get("content")),
                is_error=self.fields.get("is_error") is True,
            )
        return self

    @property
    def _call_name(self) -> str | None:
        name = self.fields.get("name")
        return name if self.type.endswith("_tool_use") and isinstance(name, str) and name else None

    def _id(self, name: str) -> str:
        identity = self.fields.get(name)
        return identity if isinstance(identity, str) else ""


class MessageParam(Body):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"] = Field(description="who speaks")
    content: str | list[ContentBlock] = Field(examples=["Hello!"], description="text, or a list of blocks")

    def to_messages(self, index: int) -> Iterator[gen.Message]:
        """Translate to the engine's vocabulary. Raises InvalidRequest for blocks that are no text."""
        where = f"messages.{index}.content"
        if isinstance(self.content, str):
            yield gen.Message(self.role, self.content)
        elif self.role == "assistant":
            yield from _assistant(self.content, where)
        else:
            yield from _user(self.role, self.content, where)

    @property
    def tool_names(self) -> Iterator[str]:
        """Name the tools that are called here, and those that a search of the client's has found."""
        for block in self.content if isinstance(self.content, list) else ():
            if block.type == "tool_use" and block.name:
                yield block.name
            for inner in block.content if isinstance(block.content, list) else ():
                name = inner.fields.get("tool_name")
                if inner.type == "tool_reference" and isinstance(name, str):
                    yield name


def _assistant(blocks: Iterable[ContentBlock], where: str) -> Iterator[gen.Message]:
    """What came of tools that a server ran stands between the assistant's words: it ends a message, begins another."""
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[gen.ToolCall] = []

    def turn() -> gen.Message:
        return gen.Message(
            "assistant", "\n".join(texts), reasoning="\n".join(reasoning) or None, tool_calls=tuple(calls)
        )

    has_results = False
    for index, block in enumerate(map(ContentBlock.as_ours, blocks)):
        match block.type:
            case "thinking":
                reasoning.append(block.thinking or unseal(block.signature))
            case "tool_use":
                calls.append(_tool_use(block, len(calls), f"{where}.{index}"))
            case "tool_result":
                if texts or reasoning or calls:
                    yield turn()
                texts, reasoning, calls = [], [], []
                yield _tool_result(block, f"{where}.{index}")
                has_results = True
            case _:
                texts += _texts(block, f"{where}.{index}", of_user=False)
    if texts or reasoning or calls or not has_results:
        yield turn()


def _user(role: Literal["user", "system"], blocks: Sequence[ContentBlock], where: str) -> Iterator[gen.Message]:
    pieces: list[str | gen.Image] = []
    has_results = False
    for index, block in enumerate(map(ContentBlock.as_ours, blocks)):
        if is_counter(block.text) and len(blocks) > 1:  # what is said beside it is the message
            continue
        if block.type != "tool_result":
            pieces += _pieces(block, f"{where}.{index}", of_user=True)
            continue
        if pieces:
            yield with_parts(gen.Message(role, as_text(pieces)), pieces)
            pieces = []
        yield _tool_result(block, f"{where}.{index}")
        has_results = True
    if pieces or not has_results:
        yield with_parts(gen.Message(role, as_text(pieces)), pieces)


def _tool_use(block: ContentBlock, index: int, where: str) -> gen.ToolCall:
    if not block.name:
        raise InvalidRequest("a tool_use block needs 'name'", param=where)
    return gen.ToolCall(index, block.id or "", block.name, json_text(block.input or {}))


def _tool_result(block: ContentBlock, where: str) -> gen.Message:
    if not block.tool_use_id:
        raise InvalidRequest("a tool_result block needs 'tool_use_id'", param=where)
    if isinstance(block.content, list):
        parts = enumerate(block.content)
        pieces = [piece for index, part in parts for piece in _pieces(part, f"{where}.content.{index}", of_user=False)]
    else:
        pieces = [block.content or ""]
    if block.is_error:
        first = pieces[0] if pieces else ""
        pieces = [f"Error: {first}", *pieces[1:]] if isinstance(first, str) else ["Error: ", *pieces]
    return with_parts(gen.Message("tool", as_text(pieces), tool_call_id=block.tool_use_id), pieces)


def _pieces(block: ContentBlock, where: str, *, of_user: bool) -> Sequence[str | gen.Image]:
    """Give what a block says or shows. Raises InvalidRequest for other media among the user's own words."""
    if not block.is_ours and (source := image_source({"type": block.type} | block.fields)) is not None:
        return [gen.Image(source, where, is_required=of_user)]
    return _texts(block, where, of_user=of_user)


def _texts(block: ContentBlock, where: str, *, of_user: bool) -> list[str]:
    """Give what a block says, if it says something. Raises InvalidRequest for images among the user's own words."""
    if not block.is_ours:
        if of_user and block.type in MEDIA and document_text({"type": block.type} | block.fields) is None:
            raise InvalidRequest(f"This model reads text only, it cannot take {_media_name(block)}", param=where)
        return [words] if (words := block.words) else []
    if block.type != "text":
        raise InvalidRequest(f"a block of type '{block.type}' does not belong here", param=where)
    if block.text is None:
        raise InvalidRequest("a block of type 'text' needs 'text'", param=where)
    return [block.text]


def _media_name(block: ContentBlock) -> str:
    source = block.fields.get("source")
    kind = source.get("media_type") if isinstance(source, dict) else None
    return f"{MEDIA[block.type]} of type {kind[:64]}" if isinstance(kind, str) else MEDIA[block.type]


class AnthropicTool(Typed):
    """A tool that the model may use; those of other types are left out."""

    kinds: ClassVar = frozenset({"custom"})

    type: str = Field(default="custom", description="custom; the tools that Anthropic defines are left out")
    name: str = Field(min_length=1, max_length=256, description="name of the tool")
    description: str = Field(default="", description="what the tool does, for the model")
    input_schema: dict[str, Any] | None = Field(default=None, description="JSON schema of the arguments")
    strict: bool = Field(default=False, description="enforce the schema of the arguments")
    defer_loading: bool = Field(
        default=False, description="leave the tool out until a tool_reference, a call of it or tool_choice names it"
    )

    def to_template(self) -> dict[str, Any]:
        """Give the tool as chat templates read it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function | {"parameters": self.input_schema or {}}}


class AnthropicToolChoice(Body):
    """How the model should use its tools."""

    type: Literal["auto", "any", "tool", "none"] = Field(
        description="whether the model may call tools, has to call one, has to call the one of `name`, or may not"
    )
    name: str | None = Field(default=None, description="the tool to call, for type tool")
    disable_parallel_tool_use: bool = Field(default=False, description="end the answer with its first call")


class Thinking(Body):
    """Whether the model reasons before it answers."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"] = Field(
        description="`enabled` and `disabled` turn reasoning on and off; the others leave it to the model"
    )
    budget_tokens: int | None = Field(default=None, ge=0, description="most tokens of reasoning; absent is no bound")
    display: Literal["summarized", "updates", "omitted"] = Field(
        default="summarized", description="`omitted` leaves the reasoning out of the answer"
    )


class OutputConfig(Body):
    """What the answer has to be."""

    format: ResponseFormat | None = Field(
        default=None,
        examples=[{"type": "json_schema", "schema": {}}],
        description="JSON of a schema, which is enforced",
    )
    effort: str | None = Field(
        default=None,
        examples=["low"],
        description="low, medium or high, for models with levels of effort",
    )


class MessagesRequest(RequestBody):
    """A conversation to answer."""

    registry = parameters.MESSAGES

    messages: Annotated[list[MessageParam], BeforeValidator(few_messages)] = Field(min_length=1)
    system: str | list[ContentBlock] = ""
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=-1)
    stream: bool = False
    stop_sequences: list[str] = Field(default_factory=list)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    tools: list[AnthropicTool] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: AnthropicToolChoice | None = None
    tool_call_grammar: gen.ToolCallGrammar | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = Field(default_factory=OutputConfig)
    output_format: ResponseFormat | None = None
    return_timing: bool = False

    _no_empty_stop = field_validator("stop_sequences")(no_empty_stop)

    @property
    def hides_thinking(self) -> bool:
        """Whether the reasoning is to be left out of the answer."""
        return self.thinking is not None and self.thinking.display == "omitted"

    def to_generation(self, limits: RequestLimits) -> gen.GenerationRequest:
        """Translate to the engine's vocabulary. Raises InvalidRequest for what cannot be done."""
        self.refuse()
        limits.check_messages(self.messages, "messages")
        limits.check_stop(self.stop_sequences, "stop_sequences")
        messages = self._conversation()
        return gen.GenerationRequest(
            image_use=self.image_use,
            model=self.model,
            messages=messages,
            tools=tuple(tool.to_template() for _, tool in self._loaded_tools),
            template_kwargs=self._template_kwargs(),
            continue_final_message=continues(messages[-1]),
            sampling=gen.Sampling(
                temperature=self.temperature,
                top_k=None if self.top_k is None else max(0, self.top_k),
                top_p=self.top_p,
                seed=self.seed,
            ),
            max_tokens=None if self.max_tokens == -1 else self.max_tokens,
            stop=tuple(self.stop_sequences),
            constraint=self._constraint(),
            thinking_budget=self._thinking_budget(),
            tool_choice=self._tool_choice(),
            tool_call_grammar=self.tool_call_grammar,
            delivery=gen.Delivery(self.stream),
        )

    def _conversation(self) -> tuple[gen.Message, ...]:
        blocks = [self.system] if isinstance(self.system, str) else self._system_texts(self.system)
        texts = [text for text in map(without_changing, blocks) if text.strip()]
        system = [gen.Message("system", "\n\n".join(texts))] if texts else []
        turns = [message for index, turn in enumerate(self.messages) for message in turn.to_messages(index)]
        return (*system, *settled(turns))

    def _system_texts(self, blocks: list[ContentBlock]) -> list[str]:
        return [text for index, block in enumerate(blocks) for text in _texts(block, f"system.{index}", of_user=True)]

    def _template_kwargs(self) -> dict[str, Any]:
        effort = self.output_config.effort
        kwargs: dict[str, Any] = {"reasoning_effort": _LEVELS[effort]} if effort in _LEVELS else {}
        if self.thinking is None or self.thinking.type in ("adaptive", "between_tools"):
            return kwargs
        return {"enable_thinking": self.thinking.type == "enabled"} | kwargs

    def _thinking_budget(self) -> int | None:
        if self.thinking is None:
            return None
        return 0 if self.thinking.type == "disabled" else self.thinking.budget_tokens

    def _constraint(self) -> gen.Constraint | None:
        response_format = self.output_config.format or self.output_format
        name = "output_config.format" if self.output_config.format else "output_format"
        constraint = response_format.to_constraint() if response_format else None
        if constraint is None:
            return None
        return replace(constraint, param=name)

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer, and its tools."""
        tools = [tool.to_template() for _, tool in self._loaded_tools]
        return Binding(self._constraint(), tools, self._tool_choice())

    @cached_property
    def _loaded_tools(self) -> Sequence[tuple[int, AnthropicTool]]:
        """Give the tools that the model gets, with their places: deferred ones once the client's search found them.

        Where the server is to search, which this one does not do, it gets all.
        """
        tools = [(index, tool) for index, tool in enumerate(self.tools) if tool.is_ours]
        if any(tool.type.startswith("tool_search_tool") for tool in self.tools):
            return tools
        names = {self.tool_choice.name if self.tool_choice else None}
        names.update(name for message in self.messages for name in message.tool_names)
        return [(index, tool) for index, tool in tools if not tool.defer_loading or tool.name in names]

    def _tool_choice(self) -> gen.ToolChoice:
        names = [tool.name for _, tool in self._loaded_tools]
        strict = {tool.name: f"tools.{index}.strict" for index, tool in self._loaded_tools if tool.strict}
        choice = self.tool_choice or AnthropicToolChoice(type="auto")
        parallel = not choice.disable_parallel_tool_use
        if choice.type == "tool":
            return tool_choice("required", names, names=[choice.name or ""], strict=strict, parallel=False)
        mode = "required" if choice.type == "any" else choice.type
        return tool_choice(mode, names, strict=strict, parallel=parallel)
