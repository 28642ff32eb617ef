"""Chat templates place images as they do with transformers, whatever they make of the parts of a message."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.model import image_markers
from app.services.engine.model.chat_template import ChatTemplate
from app.services.generation import GenerationRequest, Image, Message, ToolCall
from tests.engine.families import Family, byte_tokenizer


def turns(part: str, *, before: str = "", text: str = "message.content", parts: str = "message.content") -> str:
    """Give a template of a turn for each message, which writes its text so, or each of its parts."""
    return (
        f"{before}{{%- for message in messages -%}}[{{{{ message.role }}}}]"
        f"{{%- if message.content is string -%}}{{{{ {text} }}}}{{%- else -%}}"
        f"{{%- set parts = {parts} -%}}{{%- for part in parts -%}}{part}{{%- endfor -%}}"
        f"{{%- endif -%}}[end]{{%- endfor -%}}"
    )


def either(image: str, text: str = "{{- part.text -}}") -> str:
    return f'{{%- if part.type == "image" -%}}{image}{{%- else -%}}{text}{{%- endif -%}}'


COUNTED = (
    "{%- set images.count = images.count + 1 -%}"
    "{%- if add_vision_id -%}{{- 'Picture ' ~ images.count ~ ': ' -}}{%- endif -%}<vision><pad></vision>"
)
SORTED = '(message.content | sort(attribute="type")) if message.content | length == 2 else message.content'
TEMPLATES = {
    "as SmolVLM: a space before text alone": (
        "{%- for message in messages -%}{{- message.role | capitalize -}}"
        "{%- if message.content[0].type == 'image' -%}{{- ':' -}}{%- else -%}{{- ': ' -}}{%- endif -%}"
        "{%- for part in message.content -%}"
        "{%- if part.type == 'text' -%}{{- part.text -}}{%- elif part.type == 'image' -%}<image>{%- endif -%}"
        "{%- endfor -%}{{- '[end]' -}}{%- endfor -%}"
    ),
    "as Qwen: images are counted": turns(either(COUNTED), before="{%- set images = namespace(count=0) -%}"),
    "as Ministral: one image comes before its text": turns(either("[IMG]"), parts=SORTED),
    "as Gemma: texts are trimmed": turns(either("<image>", "{{- part.text | trim -}}"), text="message.content | trim"),
    "a line of its own": turns(either("{{- '<image>\\n' -}}")),
}
PIECES = st.sampled_from([*"ab \n", "<image>", "[IMG]", "<vision><pad></vision>"])
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
CONTENTS = st.lists(st.one_of(st.just(None), TEXTS), min_size=1, max_size=5).filter(
    lambda parts: all(None in pair for pair in pairwise(parts))  # texts that follow each other are joined first
)


@pytest.fixture(scope="module", params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"), Family(None, TEMPLATES[request.param]), ())


@pytest.fixture(scope="module")
def template(tokenizer: Any) -> ChatTemplate:
    return ChatTemplate(tokenizer)


def conversation(contents: list[list[str | None]]) -> tuple[list[Message], list[bytes]]:
    """Give messages of the user's and answers between them, in which None is an image; and the digests of these."""
    messages, digests = [], []
    for parts in contents:
        digests += [bytes([len(digests) + number]) * 16 for number in range(parts.count(None))]
        images = tuple(Image("") if part is None else part for part in parts)
        messages += [Message("user", "".join(filter(None, parts)), parts=images), Message("assistant", "Fine.")]
    return messages[:-1], digests


def rendered(template: ChatTemplate, messages: list[Message], digests: list[bytes], **options: Any) -> str:
    request = GenerationRequest(tuple(messages), generation_prompt=False, template_kwargs=options)
    return template.render(image_markers.with_markers(request, digests))


def with_transformers(tokenizer: Any, contents: list[list[str | None]], **options: Any) -> str:
    """Render the same with the parts that a processor of transformers gets."""
    messages: list[dict[str, Any]] = []
    for parts in contents:
        content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        messages += [{"role": "user", "content": content}]
        messages += [{"role": "assistant", "content": [{"type": "text", "text": "Fine."}]}]
    return str(tokenizer._tokenizer.apply_chat_template(messages[:-1], tokenize=False, **options))


@settings(max_examples=40)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=3), counts=st.booleans())
def test_a_prompt_is_that_of_transformers_with_each_image_in_its_place(
    template: ChatTemplate, tokenizer: Any, contents: list[list[str | None]], counts: bool
) -> None:
    messages, digests = conversation(contents)
    prompt = rendered(template, messages, digests, add_vision_id=counts)
    image = template._image_text
    assert image is not None
    assert image_markers.replaced(prompt, lambda _: image.text) == with_transformers(
        tokenizer, contents, add_vision_id=counts
    )
    assert [digest for part in image_markers.split(prompt) if (digest := image_markers.digest_of(part))] == digests


def made(tmp_path: Path, template: str) -> ChatTemplate:
    return ChatTemplate(byte_tokenizer(tmp_path, Family(None, template), ()))


NUMBERED = turns(either("<image_{{ loop.index }}>"))
REFUSED = turns(either('{{- raise_exception("no images") -}}'))
LEFT_OUT = turns(either(""))
AS_TEXT = "{%- for message in messages -%}[{{ message.role }}]{{ message.content }}[end]{%- endfor -%}"


@pytest.mark.parametrize("source", [NUMBERED, REFUSED, LEFT_OUT, AS_TEXT])
def test_a_template_that_knows_no_images_gets_them_as_text(tmp_path: Path, source: str) -> None:
    messages, digests = conversation([["a ", None, " b", None]])
    prompt = rendered(made(tmp_path, source), messages, digests)
    assert image_markers.replaced(prompt, lambda digest: str(digest[0])) == "[user]a 0 b1[end]"


def test_images_of_a_result_stand_in_its_text_where_only_the_user_may_have_some(tmp_path: Path) -> None:
    source = (
        "{%- for message in messages -%}[{{ message.role }}]"
        "{%- for call in message.tool_calls or () -%}{{ call.function.name ~ call.function.arguments.word }}"
        "{%- endfor -%}"
        "{%- if message.role == 'tool' or message.content is string -%}{{ message.content }}{%- else -%}"
        "{%- for part in message.content -%}{{ '<image>' if part.type == 'image' else part.text }}{%- endfor -%}"
        "{%- endif -%}{%- endfor -%}"
    )
    template = made(tmp_path, source)
    call = ToolCall(0, "call_0", "look_up", '{"word": "<image>"}')
    messages = [
        Message("user", "", parts=(Image(""), "Look")),
        Message("assistant", tool_calls=(call,)),
        Message("tool", "", tool_call_id="call_0", parts=("Here ", Image(""))),
    ]
    prompt = rendered(template, messages, [bytes([1]) * 16, bytes([2]) * 16])
    shown = image_markers.replaced(prompt, lambda digest: str(digest[0]))
    assert shown == "[user]1Look[assistant]look_up<image>[tool]Here 2"
