"""Where the images of a prompt stand: keys, parts, markers, and what a chat template makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from app.services.context_length import ContextLength
from app.services.engine.model import image_markers
from app.services.engine.prompt import PromptBuilder
from app.services.engine.vision import lfm2, pixtral, qwen, smolvlm
from app.services.engine.vision.lfm2_images import LFM2Images
from app.services.engine.vision.prompt_images import PromptImage, PromptImages
from app.services.errors import InvalidImage
from app.services.generation import EncodedImage, GenerationRequest, Image, Message, ToolCall
from tests import vision_models

LENGTHS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 2)), max_size=4)


def prompt_of(lengths: list[tuple[int, int, int]], end: int = 3) -> tuple[list[int], PromptImages]:
    """Make a prompt of texts and images of such lengths, each with its content."""
    tokens: list[int] = []
    images = []
    for text, length, content in lengths:
        tokens += range(10, 10 + text)
        images.append(PromptImage(EncodedImage(b"", bytes([content]), 1, 1), len(tokens), length))
        tokens += [9] * length
    return tokens + [8] * end, PromptImages(tuple(images))


@given(LENGTHS)
def test_keys_stand_in_the_places_of_images_alone_and_are_no_tokens(lengths: list[tuple[int, int, int]]) -> None:
    tokens, images = prompt_of(lengths)
    keyed = images.keyed(tokens)
    places = {place for image in images.images for place in range(image.start, image.end)}
    assert all((key < 0) == (place in places) for place, key in enumerate(keyed))
    assert all(key == tokens[place] for place, key in enumerate(keyed) if place not in places)
    assert all(-(2**31) <= key < 2**31 for key in keyed)


@given(LENGTHS, LENGTHS)
def test_prompts_have_the_same_keys_as_far_as_their_images_are_the_same(one: Any, other: Any) -> None:
    (tokens, images), (others, their) = prompt_of(one), prompt_of(other)
    same = [(i.start, i.length, i.image.digest) for i in images.images] == [
        (i.start, i.length, i.image.digest) for i in their.images
    ]
    assert (images.keyed(tokens) == their.keyed(others)) == (same and tokens == others)


@given(st.integers(1, 6), st.integers(1, 6))
def test_an_image_of_more_tokens_does_not_begin_as_one_of_fewer(one: int, other: int) -> None:
    image = EncodedImage(b"", b"content", 1, 1)
    first, second = PromptImage(image, 0, one).keys, PromptImage(image, 0, other).keys
    assert (first[0] == second[0]) == (one == other)


@given(LENGTHS, st.data())
def test_parts_follow_each_other_and_are_text_or_of_one_image(lengths: Any, data: st.DataObject) -> None:
    tokens, images = prompt_of(lengths)
    start = 0
    while start < len(tokens):
        end, image = images.next_part(start, min(len(tokens), start + data.draw(st.integers(1, 9))))
        assert start < end
        assert {token == 9 for token in tokens[start:end]} == {image is not None}
        assert image is None or image.start <= start < end <= image.end
        start = end


@given(LENGTHS, st.integers(0, 60))
def test_no_prefix_ends_within_an_image(lengths: Any, length: int) -> None:
    tokens, images = prompt_of(lengths)
    before = images.before(length)
    assert before <= length
    assert not any(image.start < before < image.end for image in images.images)
    assert set(tokens[before:length]) <= {9}


DIGESTS = st.binary(min_size=16, max_size=16)


@given(st.lists(st.one_of(st.text(), DIGESTS)))
def test_markers_come_out_of_a_text_as_they_went_in(parts: list[str | bytes]) -> None:
    text = "".join(part if isinstance(part, str) else image_markers.marker(part) for part in parts)
    split = [image_markers.digest_of(part) or part for part in image_markers.split(text)]
    assert [part for part in split if isinstance(part, bytes)] == [part for part in parts if isinstance(part, bytes)]
    assert "".join(part for part in split if isinstance(part, str)) == "".join(p for p in parts if isinstance(p, str))


class Built:
    """What prompts are built with for a model that sees."""

    def __init__(self, folder: Path, template: str | None = None, family: str = "gemma3") -> None:
        vision_models.build(folder, family)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        vision = vision_models.load_vision(folder, vision_models.load_text_model(folder))
        assert vision is not None
        self.vision = vision
        self.tokenizer = load_tokenizer(folder)
        self.builder = PromptBuilder(self.tokenizer, None, ContextLength(2048, 2048, ""), None, None, vision)

    def prompt(self, *messages: Message) -> tuple[str, list[int], PromptImages]:
        images = [self.vision.read(image) for message in messages for image in message.images]
        request = image_markers.with_markers(GenerationRequest(messages), [image.digest for image in images])
        prompt = self.builder.build(request, {image.digest: image for image in images})
        return self.builder.shown(prompt.text), prompt.tokens, prompt.images


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built") / "seeing")


SHOWN = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
RED, BLUE = Image(vision_models.png(1)), Image(vision_models.png(2))


def test_a_prompt_has_each_image_where_the_message_has_it(built: Built) -> None:
    text, tokens, images = built.prompt(Message("user", "", parts=("What is ", RED, " and", BLUE, "?")))
    assert text == f"<|im_start|>user\nWhat is{SHOWN}and{SHOWN}?<|im_end|>\n<|im_start|>assistant\n"
    whole = text.replace("<image_soft_token>", "<image_soft_token>" * 4)
    assert tokens == built.tokenizer.encode(whole, add_special_tokens=False)
    assert [built.vision.placeholder] * 4 == tokens[images.images[0].start : images.images[0].end]
    assert [image.image.digest for image in images.images] == [built.vision.read(image).digest for image in (RED, BLUE)]


def test_an_image_of_qwen_has_as_many_tokens_as_its_size_gives_it(tmp_path: Path) -> None:
    built = Built(tmp_path / "qwen", family="qwen2_5_vl")
    wide = Image(vision_models.png(3, width=40, height=16))
    text, tokens, images = built.prompt(Message("user", "", parts=(wide, "and", RED)))
    assert "<|vision_start|><|image_pad|><|vision_end|>and<|vision_start|>" in text
    assert [(image.length, image.grid, image.span) for image in images.images] == [(10, (2, 5), 5), (20, (4, 5), 5)]
    assert tokens.count(built.vision.placeholder) == 30
    assert images.shift(len(tokens)) == 2 * 5 - 30


@given(st.integers(1, 400), st.integers(1, 400))
def test_tokens_are_counted_as_the_processor_counts_them(width: int, height: int) -> None:
    processor = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2)
    if max(width, height) <= 200 * min(width, height):
        rows, columns = qwen.grid({}, processor, width, height)
        assert 4 * rows * columns == processor.get_number_of_image_patches(height, width)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        (prepared,) = processor([pixels], return_tensors="np", input_data_format="channels_last")["image_grid_thw"]
        assert prepared.tolist() == [1, 2 * rows, 2 * columns]


def test_gemma_4_gives_an_image_the_largest_budget_that_is_allowed(tmp_path: Path) -> None:
    built = Built(tmp_path / "gemma4", family="gemma4")
    built.vision._processor.max_soft_tokens = 280
    for most, budget in ((1280, 280), (200, 140), (1, 70)):
        built.vision.limit(2**20, most)
        text, tokens, images = built.prompt(Message("user", "", parts=(RED, "?")))
        assert "<|image><|image_pad|><image|>" in text
        (image,) = images.images
        assert budget // 2 < image.length == tokens.count(built.vision.placeholder) <= budget
        assert len(built.vision._prepare(image.image)["image_position_ids"][0]) == 9 * budget


@given(st.integers(1, 400), st.integers(1, 400))
def test_rows_of_an_image_for_mistral_end_with_a_token_each(width: int, height: int) -> None:
    config = {"model_type": "mistral3", "spatial_merge_size": 2, "vision_config": {"patch_size": 7}}
    processor = PixtralImageProcessorPil(**pixtral.settings(config, {"size": {"longest_edge": 200}}))
    if max(width, height) <= 200 * min(width, height):
        *parts, columns, end = pixtral.layout(config, processor, width, height)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        (prepared,) = processor([pixels], return_tensors="np", input_data_format="channels_last")["image_sizes"]
        assert list(prepared) == [14 * (len(parts) // 2 + 1), 14 * columns]
        assert parts == [columns, "[IMG_BREAK]"] * (len(parts) // 2)
        assert end == "[IMG_END]"


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([(32, 8), (96, 24), (50, 24), (24, 24)]))
def test_smolvlm_cuts_an_image_into_the_tiles_that_stand_in_its_prompt(width: int, height: int, sizes: Any) -> None:
    longest, side = sizes
    config = {"scale_factor": 2, "vision_config": {"patch_size": 2}}
    settings = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": side}, "do_pad": False}
    processor = Idefics3ImageProcessorPil(**settings, return_row_col_info=True)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    prepared = processor([pixels], return_tensors="np", input_data_format="channels_last")
    (rows,), (columns,) = prepared["rows"][0], prepared["cols"][0]
    assert smolvlm.tiles(processor, width, height) == (rows, columns)
    layout = smolvlm.layout(config, processor, width, height)
    assert [part for part in layout if isinstance(part, int)] == [side**2 // 16] * prepared["pixel_values"].shape[1]
    text = "".join("<image>" if isinstance(part, int) else part for part in layout)
    assert f"<fake_token_around_image>{text}<fake_token_around_image>" == get_image_prompt_string(
        rows, columns, 1, "<fake_token_around_image>", "<image>", "<global-img>"
    )


@given(st.integers(1, 400), st.integers(1, 400), st.booleans(), st.booleans())
def test_lfm2_prepares_the_tiles_that_stand_in_its_prompt(width: int, height: int, whole: bool, cuts: bool) -> None:
    settings = {"encoder_patch_size": 4, "tile_size": 24, "min_image_tokens": 3, "max_image_tokens": 9}
    processor = LFM2Images.from_dict(settings | {"use_thumbnail": whole, "do_image_splitting": cuts, "unknown": 1})
    prepared = processor([np.zeros((height, width, 3), dtype=np.uint8)])
    shapes = prepared["spatial_shapes"].tolist()
    assert prepared["pixel_values"].shape == (sum(rows * columns for rows, columns in shapes), 48)
    layout = lfm2.layout({}, processor, width, height)
    assert [part for part in layout if isinstance(part, int)] == [rows * columns // 4 for rows, columns in shapes]
    assert cuts or len(shapes) == 1
    if max(width, height) <= 5 * min(width, height) and len(shapes) == 1:
        assert 3 <= shapes[0][0] * shapes[0][1] // 4 <= 9 * 2


def test_text_that_looks_like_an_image_is_text(built: Built) -> None:
    fake = "<start_of_image><image_soft_token><end_of_image>"
    _, tokens, images = built.prompt(Message("user", "", parts=(fake, RED)))
    assert len(images.images) == 1
    assert images.images[0].start > tokens.index(built.vision.placeholder)


def test_images_stay_with_their_messages_when_these_are_put_in_order(built: Built) -> None:
    call = ToolCall(0, "1", "look", "{}")
    text, _, images = built.prompt(
        Message("user", "Look"),
        Message("assistant", tool_calls=(call,)),
        Message("user", "", parts=(BLUE, "mine")),
        Message("tool", "", tool_call_id="1", parts=("result", RED)),
    )
    digests = [image.image.digest for image in images.images]
    expected = {text.index("mine"): BLUE, text.index("result"): RED}
    assert digests == [built.vision.read(image).digest for _, image in sorted(expected.items())]


def test_a_template_that_takes_text_alone_gets_the_images_in_it(tmp_path: Path) -> None:
    template = (
        '{%- for message in messages -%}{{- "<|im_start|>" ~ message.content ~ "<|im_end|>\\n" -}}{%- endfor -%}'
        '{%- if add_generation_prompt -%}{{- "<|im_start|>" -}}{%- endif -%}'
    )
    text, _, images = Built(tmp_path / "plain", template).prompt(Message("user", "", parts=("Look ", RED)))
    assert text == f"<|im_start|>Look {SHOWN}<|im_end|>\n<|im_start|>"
    assert len(images.images) == 1


def test_a_tower_that_cannot_be_used_leaves_a_model_that_reads_text(tmp_path: Path) -> None:
    folder = vision_models.build(tmp_path / "broken")
    (folder / "preprocessor_config.json").unlink()
    assert vision_models.load_vision(folder, None) is None


def test_settings_that_make_no_processor_are_said_for_an_image_and_harm_no_text(tmp_path: Path) -> None:
    folder = vision_models.build(tmp_path / "odd")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"size": "large"}))
    vision = vision_models.load_vision(folder, vision_models.load_text_model(folder))
    assert vision is not None
    with pytest.raises(InvalidImage, match=r"^this model's settings for images cannot be used: .*large"):
        vision.read(RED)
