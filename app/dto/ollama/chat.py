"""Ollama's chat."""

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import BeforeValidator, Field

import app.services.generation as gen
from app.dto.ollama.answer import (
    OllamaAnswer,
    OllamaStream,
    arguments_object,
    empty_head,
    head,
    numbers,
    scores,
    tagged,
)
from app.dto.ollama.request import OllamaGenerating
from app.dto.openai.chat_message import Tool
from app.dto.shared import parameters
from app.dto.shared.base import MOST_TOOLS, Body, Reply, RequestLimits, continues, few_messages, json_text
from app.dto.shared.readable import to_images, with_parts
from app.dto.shared.tool_choice import tool_choice
from app.services.json_schema.enforcement import Binding


class OllamaFunction(Body):
    """What was called, and with what."""

    name: str = Field(min_length=1, description="name of the tool")
    index: int = Field(default=0, description="number of the call; their order counts")
    arguments: Annotated[Any, BeforeValidator(json_text)] = Field(
        default="{}", description="the arguments, an object; JSON text is taken too"
    )


class OllamaToolCall(Body):
    """A call that the model made earlier."""

    id: str = Field(default="", description="id of the call, to which its result may refer")
    type: str = Field(default="function", description="always function")
    function: OllamaFunction = Field(description="what was called")


class OllamaMessage(Body):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"] = Field(description="who speaks")
    content: str = Field(default="", examples=["Hello!"], description="the text")
    thinking: str | None = Field(default=None, description="the reasoning of an earlier answer")
    images: list[Any] = Field(
        default_factory=list, description="images in base64, which come before the text, for a model that sees"
    )
    tool_calls: list[OllamaToolCall] = Field(default_factory=list, description="tools that the assistant called")
    tool_name: str | None = Field(default=None, description="name of the tool whose result this is")
    tool_call_id: str | None = Field(
        default=None, description="the call that a result answers; absent, the next one without an answer"
    )

    def to_message(self, index: int) -> gen.Message:
        """Translate to the engine's vocabulary."""
        calls = enumerate(self.tool_calls)
        images = to_images(self.images, f"messages.{index}.images")
        message = gen.Message(
            role=self.role,
            content=self.content,
            reasoning=self.thinking,
            tool_calls=tuple(
                gen.ToolCall(i, call.id, call.function.name, call.function.arguments) for i, call in calls
            ),
            tool_call_id=self.tool_call_id,
            name=self.tool_name,
        )
        return with_parts(message, [*images, self.content])


class OllamaChatRequest(OllamaGenerating):
    """A conversation to answer. Without messages the model is loaded, or unloaded where `keep_alive` is 0."""

    registry = parameters.OLLAMA_CHAT

    messages: Annotated[list[OllamaMessage], BeforeValidator(few_messages)] = Field(default_factory=list)
    tools: list[Tool] = Field(default_factory=list, max_length=MOST_TOOLS)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to answer."""
        return not self.messages

    def to_generation(self, limits: RequestLimits) -> gen.GenerationRequest:
        """Translate to the engine's vocabulary. Raises InvalidRequest for what cannot be done."""
        limits.check_messages(self.messages, "messages")
        messages = tuple(message.to_message(index) for index, message in enumerate(self.messages))
        return replace(
            self.common(limits),
            messages=messages,
            tools=self._tools(),
            tool_choice=self._tool_choice(),
            continue_final_message=continues(messages[-1]),
        )

    def _tools(self) -> tuple[dict[str, Any], ...]:
        return tuple(tool.to_template() for tool in self.tools if tool.is_ours)

    def _tool_choice(self) -> gen.ToolChoice:
        return tool_choice("auto", [tool.name for tool in self.tools if tool.is_ours])

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer, and its tools."""
        return Binding(self.constraint(), list(self._tools()), self._tool_choice())


class OllamaCalledFunction(Reply, kw_only=True):
    """What the model calls, and with what."""

    index: Annotated[int, Meta(description="number of the call in the answer")]
    name: Annotated[str, Meta(description="name of the tool")]
    arguments: Annotated[dict[str, Any], Meta(description="the arguments")]


class OllamaCall(Reply, kw_only=True):
    """A call of the model."""

    id: Annotated[str, Meta(description="id of the call, to which its result may refer")]
    function: Annotated[OllamaCalledFunction, Meta(description="what is called")]

    @classmethod
    def of(cls, call: gen.ToolCall) -> "OllamaCall":
        """Build it from a whole call."""
        function = OllamaCalledFunction(index=call.index, name=call.name, arguments=arguments_object(call))
        return cls(id=call.id, function=function)


class OllamaReplyMessage(Reply, kw_only=True):
    """What the model says."""

    role: Annotated[Literal["assistant"], Meta(description="always assistant")] = "assistant"
    content: Annotated[str, Meta(description="text of the answer")]
    thinking: Annotated[str | UnsetType, Meta(description="reasoning of the model")] = UNSET
    tool_calls: Annotated[list[OllamaCall] | UnsetType, Meta(description="calls of the model")] = UNSET


class OllamaChatChunk(OllamaAnswer, kw_only=True):
    """A piece of the answer; the last is empty, and has the numbers."""

    message: Annotated[OllamaReplyMessage, Meta(description="what is new")]


class OllamaChatAnswer(OllamaAnswer, kw_only=True):
    """The whole answer."""

    message: Annotated[OllamaReplyMessage, Meta(description="what the model says")]

    @classmethod
    def of(cls, answer: gen.Completion) -> "OllamaChatAnswer":
        """Build it from a whole answer."""
        assert answer.finished is not None
        return cls(
            message=OllamaReplyMessage(
                content=answer.text,
                thinking=answer.reasoning or UNSET,
                tool_calls=[OllamaCall.of(call) for call in answer.tool_calls] or UNSET,
            ),
            logprobs=scores(answer.logprobs),
            **head(tagged(answer.model), done=True) | numbers(answer.finished),
        )

    @classmethod
    def empty(cls, model: str, *, unloaded: bool) -> "OllamaChatAnswer":
        """Say that a model was loaded or unloaded."""
        message = OllamaReplyMessage(content="")
        return cls(message=message, **empty_head(model, unloaded=unloaded))


class OllamaChatStream(OllamaStream):
    """Translates events to the lines of a chat."""

    def piece(
        self, *, text: str = "", thinking: str | UnsetType = UNSET, call: gen.ToolCall | None = None, **more: Any
    ) -> OllamaChatChunk:
        """Build a line."""
        calls = UNSET if call is None else [OllamaCall.of(call)]
        message = OllamaReplyMessage(content=text, thinking=thinking, tool_calls=calls)
        return OllamaChatChunk(message=message, **self.head() | more)
