"""Tools are told to models whose chat template has nowhere to list them, and their calls are understood."""

import json
import re
from pathlib import Path

import pytest

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.output.markup import Markup
from app.services.generation import GenerationRequest, Message
from tests.engine.families import Family, byte_tokenizer
from tests.engine.parsing import TOOLS, parse

ECHO = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"


@pytest.mark.parametrize("system", [True, False])
def test_tools_are_told_where_the_template_lists_none(system: bool, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path, Family(None, ECHO if system else NO_SYSTEM + ECHO), ())
    messages = (Message("system", "Be brief."), Message("user", "Question"))
    prompt = ChatTemplate(tokenizer).render(GenerationRequest(messages=messages, tools=TOOLS))
    listed = re.search(r"<tools>\n(.*)\n</tools>", prompt)
    assert listed is not None
    assert json.loads(listed[1]) == TOOLS[0]
    assert prompt.index("Be brief.") < listed.start() < prompt.index("Question")
    assert ("[system]" in prompt) is system
    assert "<tools>" not in ChatTemplate(tokenizer).render(GenerationRequest(messages=messages))
    # What the model is told to write is understood.
    call = prompt[prompt.rindex("<tool_call>") : prompt.index("</tool_call>")].replace("function_name", "add")
    parts, _ = parse([call + "</tool_call>"], Markup.of(tokenizer), tools=TOOLS)
    assert parts == [(0, "add", '{"argument_name": "value"}')]
