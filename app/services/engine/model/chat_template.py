"""A model's chat template, and what it takes."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.services.engine.model import template_probe
from app.services.engine.model.conversation import STRICT, Capabilities, fit
from app.services.engine.model.template_messages import spell, with_descriptions, with_parameters, with_plain_schemas
from app.services.engine.output.tool_call_formats import call_format, parser_name, write_calls
from app.services.errors import InvalidRequest
from app.services.generation import GenerationRequest, Message, ToolCall

Tools = Sequence[Mapping[str, Any]]

_KEPT = 8  # sets of tools that were made whole


class ChatTemplate:
    """Renders conversations; what the template takes comes out as it was sent. Not safe for two threads at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._whole_tools: deque[tuple[Tools, Tools]] = deque(maxlen=_KEPT)
        parser = parser_name(tokenizer)
        source = tokenizer.chat_template
        self._format = call_format(parser, source if isinstance(source, str) else "")
        self._parser = parser
        self._strict = STRICT
        self._no_tools: list[Any] | None = None
        if not self._renders(()):  # templates for tools walk a list, be it empty
            self._no_tools = []
            self._no_tools = [] if self._renders(()) else None
        # With tools another template may be chosen, or another branch of it.
        self._capabilities = {with_tools: self._probe(with_tools=with_tools) for with_tools in (False, True)}
        self._strict = replace(STRICT, text_content=self._capabilities[False].text_content)

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text. Raises InvalidRequest for what the template refuses."""
        if not self._tokenizer.has_chat_template:
            raise InvalidRequest("This model has no chat template, so it cannot answer a conversation")
        goes_on = request.continue_final_message
        refusal: Exception | None = None
        for tools, capabilities in self._ways(request.tools):
            messages = fit(request.messages, capabilities, self._write_calls, continues=goes_on)
            options = {"add_generation_prompt": request.generation_prompt and not goes_on, **request.template_kwargs}
            try:
                return self._apply(messages, tools, capabilities, continue_final_message=goes_on, **options)
            except Exception as error:  # a template is a program that somebody else wrote
                refusal = refusal or error  # what it says of the conversation as it came says most
        raise InvalidRequest(
            f"The model's chat template refuses this conversation: {_line(refusal)}", param="messages"
        ) from refusal

    def _ways(self, tools: Tools) -> Iterator[tuple[Tools, Capabilities]]:
        """Give the ways to say a conversation: the one that is known, and what is left if that is refused."""
        sent = self._tools_of(tools)
        capabilities = self._capabilities[bool(tools)]
        yield sent, capabilities
        whole = self._make_whole(sent)
        if whole is not sent:
            yield whole, capabilities
        yield whole, self._strict

    def _apply(self, messages: Sequence[Message], tools: Tools, capabilities: Capabilities, **options: Any) -> str:
        # mlx-lm's wrapper would turn thinking on by itself; the default is to be the template's own.
        wrapped = self._tokenizer._chat_template is not None
        renderer = self._tokenizer if wrapped or "enable_thinking" in options else self._tokenizer._tokenizer
        spelled = [
            spell(message, text_content=capabilities.text_content, argument_objects=capabilities.argument_objects)
            for message in messages
        ]
        return _whole(
            str(renderer.apply_chat_template(spelled, tools=list(tools) or self._no_tools, tokenize=False, **options))
        )

    def _write_calls(self, calls: Sequence[ToolCall]) -> str:
        return write_calls(calls, self._parser, self._format)

    def _tools_of(self, tools: Tools) -> Tools:
        """Give tools as the template takes them, as far as that is known."""
        return next((whole for sent, whole in self._whole_tools if sent == tools), tools)

    def _make_whole(self, tools: Tools) -> Tools:
        """Add to tools what the template looks for in vain, no more than it needs, and note that."""
        if not tools or self._renders(tools):
            return tools
        for add in (with_parameters, with_descriptions, with_plain_schemas):
            whole = [add(tool) for tool in tools]
            if self._renders(whole):
                self._whole_tools.append((tools, whole))
                return whole
        return tools

    def _renders(self, tools: Tools) -> bool:
        try:
            self._apply([Message("user", "Hello")], tools, self._strict, add_generation_prompt=True)
        except Exception:
            return False
        return True

    def _probe(self, *, with_tools: bool) -> Capabilities:
        if not self._tokenizer.has_chat_template:
            return Capabilities()
        tools = (template_probe.TOOL,) if with_tools else ()

        def render(messages: Sequence[Message], capabilities: Capabilities) -> str | None:
            try:
                fitted = fit(messages, capabilities, self._write_calls)
                return self._apply(fitted, tools, capabilities, add_generation_prompt=True)
            except Exception:
                return None

        return template_probe.probe(render)


def _whole(text: str) -> str:
    """Put the replacement character for halves of characters, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
