"""Chat templates beside the tokenizer: several by name, in files of their own, and in chat_template.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.model.loading import read_tokenizer
from app.services.engine.output.markup import Markup
from app.services.generation import GenerationRequest, Message, ToolCall
from tests.engine.families import FAMILIES, Family, byte_tokenizer
from tests.engine.parsing import ADDED, CALL, TOOLS, parse

PLAIN = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
WITH_TOOLS = (
    "{{ tools | length }} tools: <tool_call>"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% for tool_call in message.tool_calls or [] %}<tool_call>{{ tool_call.name }}"
    "{{ tool_call.function.arguments | tojson }}</tool_call>{% endfor %}{% endfor %}"
)


def in_config(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    templates = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": WITH_TOOLS}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": templates}))
    (folder / "chat_template.jinja").unlink()


def in_files(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(PLAIN)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(WITH_TOOLS)


def in_json(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": WITH_TOOLS}))


@pytest.mark.parametrize("write", [in_config, in_files])
def test_with_tools_the_template_for_tools_is_used_and_calls_are_understood(write: Any, tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, Family(None, ""), ())
    write(tmp_path)
    tokenizer = read_tokenizer(tmp_path, None)
    template = ChatTemplate(tokenizer)
    question = Message("user", "Hello")
    assert template.render(GenerationRequest(messages=(question,))) == "<user>Hello"
    request = GenerationRequest(messages=(question,), tools=TOOLS)
    assert template.render(request) == "1 tools: <tool_call><user>Hello"
    markup = Markup.of(tokenizer)
    assert markup.calls is not None and markup.calls.format is not None
    assert parse(list(CALL), markup, tools=TOOLS)[0] == [ADDED]


def test_calls_of_a_list_whose_templates_take_none_are_put_into_the_text(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, Family(None, ""), ())
    in_config(tmp_path)
    template = ChatTemplate(read_tokenizer(tmp_path, None))
    call = Message("assistant", tool_calls=(ToolCall(0, "call_1", "add", '{"a": "x"}'),))
    messages = (Message("user", "Hello"), call, Message("tool", "5", tool_call_id="call_1"))
    assert '"arguments": {"a": "x"}' in template.render(GenerationRequest(messages=messages))
    assert '{"a": "x"}</tool_call>' in template.render(GenerationRequest(messages=messages, tools=TOOLS))


def test_a_template_in_a_json_file_of_its_own_is_read(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, Family(None, ""), ())
    in_json(tmp_path)
    tokenizer = read_tokenizer(tmp_path, None)
    request = GenerationRequest(messages=(Message("user", "Hello"),), tools=TOOLS)
    assert ChatTemplate(tokenizer).render(request) == "1 tools: <tool_call><user>Hello"
    assert Markup.of(tokenizer).calls is not None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"chat_template": 3}'])
def test_a_json_file_without_a_template_leaves_the_model_without_one(content: str, tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, FAMILIES["llama"], ())
    in_json(tmp_path)
    (tmp_path / "chat_template.json").write_text(content)
    assert not read_tokenizer(tmp_path, None).has_chat_template


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ message.reasoning_content }}{{ message.content }}", "Hm.Well."),
        ("{{ message.reasoning }}{{ message.content }}", "Hm.Well."),
        ("{{ message['thought'] }}{{ message['content'] }}", "Hm.Well."),
        (
            "{% for block in message.content if message.content is not string %}{% if block.type == 'thinking' %}"
            "[THINK]{{ block['thinking'] }}[/THINK]{% else %}{{ block.text }}{% endif %}"
            "{% else %}{{ message.content }}{% endfor %}",
            "[THINK]Hm.[/THINK]Well.",
        ),
    ],
)
def test_reasoning_is_given_back_where_the_template_looks_for_it(template: str, shown: str, tmp_path: Path) -> None:
    source = f"{{% for message in messages %}}<{{{{ message.role }}}}>{template}{{% endfor %}}"
    messages = (Message("user", "Hello"), Message("assistant", "Well.", reasoning="Hm."), Message("user", "So"))
    rendered = ChatTemplate(byte_tokenizer(tmp_path, Family(None, source), ())).render(
        GenerationRequest(messages=messages)
    )
    assert f"<assistant>{shown}<user>" in rendered


def test_tools_are_given_under_the_other_name_that_a_template_has_for_them(tmp_path: Path) -> None:
    source = "{{ xml_tools | length }} <tool_call>{% for message in messages %}{{ message.content }}{% endfor %}"
    template = ChatTemplate(byte_tokenizer(tmp_path, Family(None, source), ()))
    request = GenerationRequest(messages=(Message("user", "Hello"),), tools=TOOLS)
    assert template.render(request) == "1 <tool_call>Hello"
