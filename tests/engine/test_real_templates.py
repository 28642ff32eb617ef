"""Real chat templates, where a folder has them: the calls and the reasoning that they write are understood.

TILES_TEST_TEMPLATES names the folder, such as models/templates of llama.cpp's sources.
"""

import json
import os
from pathlib import Path

import pytest

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.model.image_markers import replaced, with_markers
from app.services.engine.output.markup import Markup
from app.services.errors import InvalidRequest
from app.services.generation import GenerationRequest, Image, Message, ToolCall
from tests.engine.families import Family, byte_tokenizer
from tests.engine.parsing import TOOLS, parse

FOLDER = Path(os.environ.get("TILES_TEST_TEMPLATES") or "/nowhere")
ARGUMENTS = {"a": 'x "y"\n</z> é ', "b": 2}
CALL = ToolCall(0, "callabcd0", "add", json.dumps(ARGUMENTS, ensure_ascii=False))
# Of which the tokens tell the notation, those that write none, and those that this conversation cannot be put to.
NO_CALLS = {
    *("Kimi-K3", "LFM2.5-Instruct", "fireworks-ai-llama-3-firefunction-v2", "meetkai-functionary-medium-v3.2"),
    "llama-cpp-deepseek-r1",
}
IMAGE = Image("")
HARMONY = {"openai-gpt-oss-120b", "llm-jp-llm-jp-4.1-8b-thinking"}  # tests of their own
REFUSED = "refuses this conversation"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FOLDER.is_dir(), reason="TILES_TEST_TEMPLATES names no folder")]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_what_a_template_writes_is_understood(path: Path, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path, Family(None, path.read_text()), ())
    markup, template = Markup.of(tokenizer), ChatTemplate(tokenizer)
    if path.stem in NO_CALLS | HARMONY:
        pytest.skip("it writes no calls")
    question, answer = Message("user", "Question"), Message("assistant", reasoning="Thought.", tool_calls=(CALL,))
    request = GenerationRequest(messages=(question,), tools=TOOLS)
    result = Message("tool", "Result", tool_call_id=CALL.id)
    try:
        prompt = template.render(request)
        text = template.render(GenerationRequest(messages=(question, answer, result), tools=TOOLS))
    except InvalidRequest as error:
        pytest.skip(str(error))
    written = text[text.index("Question") :].partition("Result")[0]
    thinking = bool(markup.think_start) and prompt.rstrip().endswith(markup.think_start or "")
    written = written.removeprefix(prompt[prompt.index("Question") :]) if thinking else written
    parts, _ = parse([written], markup, tools=TOOLS, thinking=thinking and written.startswith("Thought"))
    assert [json.loads(part[2]) for part in parts if isinstance(part, tuple)] == [ARGUMENTS]
    assert parse(list(written), markup, tools=TOOLS, thinking=thinking and written.startswith("Thought"))[0] == parts


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_images_stand_where_a_template_puts_them(path: Path, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path, Family(None, path.read_text()), ())
    template = ChatTemplate(tokenizer)
    if (image := template._image_text) is None:
        pytest.skip("it knows no images")
    for parts in ((IMAGE, "What?"), ("What?", IMAGE), (IMAGE,), ("[IMG] <image>", IMAGE, " and ", IMAGE, IMAGE, "?")):
        content = [{"type": "image"} if part is IMAGE else {"type": "text", "text": part} for part in parts]
        expected = tokenizer._tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        request = GenerationRequest((Message("user", parts=parts),), generation_prompt=False)
        prompt = template.render(with_markers(request, [bytes([number]) for number in range(parts.count(IMAGE))]))
        assert replaced(prompt, lambda _: image.text) == expected
