"""A model's chat template: renders conversations to prompts, adapted to what the template accepts."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from app.services.engine.model import template_probe
from app.services.engine.model.conversation import STRICT, Capabilities, adapt_messages
from app.services.engine.model.image_markers import STAND_IN, digest_of, split
from app.services.engine.model.template_images import ImageText, find_image_text
from app.services.engine.model.template_messages import (
    reasoning_field,
    to_template,
    with_descriptions,
    with_parameters,
    with_plain_schemas,
)
from app.services.engine.output import harmony
from app.services.engine.output.template_clues import call_parser, takes_tools, template_text
from app.services.engine.output.tool_call_formats import call_format, write_calls
from app.services.errors import InvalidRequest
from app.services.errors.base import first_line
from app.services.generation import GenerationRequest, Message, ToolCall

Tools = Sequence[Mapping[str, Any]]

_LEVELS = {"low", "medium", "high"}  # of effort, as requests name them
# What a model is told where its template lists no tools: the words of Hermes, which many models were trained on.
_TOOLS = """You may call one or more functions to help with the request. They are, as JSON schemas:
<tools>
{lines}
</tools>

To call one, write its name and its arguments, and nothing after them, exactly like this:
{example}"""
_CACHED = 8  # lists of tools whose completion is remembered


class ChatTemplate:
    """Renders conversations, changed only where the template would refuse them or drop a part. Not thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._complete_tools: deque[tuple[Tools, Tools]] = deque(maxlen=_CACHED)
        parser, _ = call_parser(tokenizer)
        source = template_text(tokenizer)
        self._format = call_format(parser, source)
        self._reasoning_field = reasoning_field(source)
        self._takes_tools = takes_tools(source)
        self._takes_xml_tools = "xml_tools" in source  # SmolLM3 has another name for the tools
        self._parser = parser
        self._strict = STRICT
        self._no_tools: list[Any] | None = None
        if not self._renders(()):  # templates for tools walk a list, be it empty
            self._no_tools = []
            self._no_tools = [] if self._renders(()) else None
        # With tools another template may be chosen, or another branch of it.
        self.capabilities = {with_tools: self._probe(with_tools=with_tools) for with_tools in (False, True)}
        self._strict = replace(STRICT, text_content=self.capabilities[False].text_content)

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text. Raises InvalidRequest for what the template refuses."""
        if not self._tokenizer.has_chat_template:
            raise InvalidRequest("This model has no chat template, so it cannot answer a conversation")
        continues = request.continue_final_message
        refusal: Exception | None = None
        for tools, capabilities in self._variants(request.tools):
            messages = request.messages if self._takes_tools else self._with_tools(request.messages, tools)
            messages = adapt_messages(messages, capabilities, self.write_calls, continues=continues)
            options = {"add_generation_prompt": request.generation_prompt and not continues, **request.template_kwargs}
            try:
                field = self._field_to_continue(messages) if continues else False
                prompt = self.apply(messages, tools, capabilities, continue_final_message=field, **options)
                return prompt + self._without_reasoning(request, prompt)
            except Exception as error:  # a template is a program that somebody else wrote
                refusal = refusal or error  # the first refusal is of the conversation least changed
        if request.template_kwargs.get("reasoning_effort") in _LEVELS:  # of which this template lacks one
            kwargs = {key: value for key, value in request.template_kwargs.items() if key != "reasoning_effort"}
            return self.render(replace(request, template_kwargs=kwargs))
        raise InvalidRequest(
            f"The model's chat template refuses this conversation: {first_line(refusal)}", param="messages"
        ) from refusal

    def _with_tools(self, messages: Sequence[Message], tools: Tools) -> Sequence[Message]:
        """Put the tools into the system prompt, for a template that has nowhere to put them."""
        if not tools:
            return messages
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        example = self.write_calls([ToolCall(0, "call_0", "function_name", '{"argument_name": "value"}')])
        text = _TOOLS.format(lines=lines, example=example.strip())
        if not messages or messages[0].role != "system":
            return [Message("system", text), *messages]
        first = replace(messages[0], content=f"{messages[0].content}\n\n{text}".lstrip())
        return [first, *messages[1:]]

    def _field_to_continue(self, messages: Sequence[Message]) -> str | bool:
        """Say which part of the last message goes on, as transformers takes it: a field, or True for the content."""
        has_headers = self._format is not None and self._format.has_headers
        last = messages[-1]
        return "reasoning_content" if has_headers and last.reasoning and not last.content else True

    def _without_reasoning(self, request: GenerationRequest, prompt: str) -> str:
        """Give what has an answer begin without reasoning, if that is wanted and the template has no switch for it."""
        is_off = request.template_kwargs.get("enable_thinking") is False
        if not (is_off and self._format and self._format.has_headers and prompt.endswith(harmony.BEGIN)):
            return ""
        calls = request.tools and request.tool_choice.mode != "none"
        return harmony.NO_REASONING if calls else harmony.FINAL

    def _variants(self, tools: Tools) -> Iterator[tuple[Tools, Capabilities]]:
        """Give the tools and capabilities to try: as probed, then with completed tools, then with the least."""
        tools = self._remembered_tools(tools)
        capabilities = self.capabilities[bool(tools)]
        yield tools, capabilities
        complete = self._complete(tools)
        if complete is not tools:
            yield complete, capabilities
        yield complete, self._strict

    def apply(self, messages: Sequence[Message], tools: Tools, capabilities: Capabilities, **options: Any) -> str:
        """Render messages as they are. Raises whatever the template raises."""
        prompt = None
        if any(map(digest_of, (part for message in messages for part in split(message.content)))):
            prompt = self._with_images(messages, tools, capabilities, **options)
        return _replace_surrogates(
            self._rendered(messages, tools, capabilities, **options) if prompt is None else prompt
        )

    def _with_images(
        self, messages: Sequence[Message], tools: Tools, capabilities: Capabilities, **options: Any
    ) -> str | None:
        """Render messages with their images as parts; None where the template takes them in text alone."""
        if (image := self._image_text) is None:
            return None
        seen = (part for message in messages if message.role in image.roles for part in split(message.content))
        try:
            prompt = self._rendered(messages, tools, capabilities, image, **options)
        except Exception:
            return None
        return image.marked(prompt, [part for part in seen if digest_of(part)])

    @cached_property
    def _image_text(self) -> ImageText | None:
        """Sought once a conversation has an image."""

        def render(messages: Sequence[Message], role: str, tools: Tools) -> str:
            capabilities = self.capabilities[bool(tools)]
            messages = adapt_messages(messages, capabilities, self.write_calls)
            image = ImageText(STAND_IN, frozenset((role,)))  # whose text is still to be found
            return self._rendered(messages, tools, capabilities, image, add_generation_prompt=True)

        return find_image_text(render)

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Tools,
        capabilities: Capabilities,
        image: ImageText | None = None,
        **options: Any,
    ) -> str:
        """Render messages, with images as parts in those of the roles that may have them so."""
        # mlx-lm's wrapper would turn thinking on by itself; the default is to be the template's own.
        wrapped = self._tokenizer._chat_template is not None
        renderer = self._tokenizer if wrapped or "enable_thinking" in options else self._tokenizer._tokenizer
        tool_list: list[Any] | None = list(tools) or self._no_tools
        template_messages = [
            to_template(
                message,
                text_content=capabilities.text_content,
                argument_objects=capabilities.argument_objects,
                reasoning_field=self._reasoning_field,
                image_parts=image is not None and message.role in image.roles,
            )
            for message in messages
        ]
        if image is not None:
            template_messages, tool_list = image.hidden(template_messages), image.hidden(tool_list)
        if self._takes_xml_tools and tools:
            options = {"xml_tools": tool_list, **options}
        return str(renderer.apply_chat_template(template_messages, tools=tool_list, tokenize=False, **options))

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """Write calls as the model's family does."""
        return write_calls(calls, self._parser, self._format)

    def _remembered_tools(self, tools: Tools) -> Tools:
        """Give the completion of these tools if one was needed before."""
        return next((complete for original, complete in self._complete_tools if original == tools), tools)

    def _complete(self, tools: Tools) -> Tools:
        """Add the members that the template needs to tools, as few as possible, and remember them."""
        if not tools or self._renders(tools):
            return tools
        for add in (with_parameters, with_descriptions, with_plain_schemas):
            complete = [add(tool) for tool in tools]
            if self._renders(complete):
                self._complete_tools.append((tools, complete))
                return complete
        return tools

    def _renders(self, tools: Tools) -> bool:
        try:
            self.apply([Message("user", "Hello")], tools, self._strict, add_generation_prompt=True)
        except Exception:
            return False
        return True

    def _probe(self, *, with_tools: bool) -> Capabilities:
        if not self._tokenizer.has_chat_template:
            return Capabilities()
        tools = (template_probe.TOOL,) if with_tools else ()

        def render(messages: Sequence[Message], capabilities: Capabilities) -> str | None:
            try:
                messages = adapt_messages(messages, capabilities, self.write_calls)
                return self.apply(messages, tools, capabilities, add_generation_prompt=True)
            except Exception:
                return None

        return template_probe.probe(render)


def _replace_surrogates(text: str) -> str:
    """Put U+FFFD in the place of lone surrogates, which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
