"""Prompts with images as llama-server takes them: the text around the markers, and the images in their places."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dto.openai.chat_message import ChatMessage
from app.dto.openai.prompt import PromptObject
from app.services.errors import InvalidRequest
from app.services.generation import Image
from app.services.media_marker import MEDIA_MARKER

TEXTS = st.text() | st.sampled_from([MEDIA_MARKER[:-1], MEDIA_MARKER[1:], "<__media__>"])


@given(st.lists(TEXTS, min_size=2, max_size=5))
def test_each_marker_is_an_image_and_all_else_is_text(texts: list[str]) -> None:
    data = [f"image {number}" for number in range(len(texts) - 1)]
    sent = PromptObject(prompt_string=MEDIA_MARKER.join(texts), multimodal_data=data)
    pieces = sent.pieces("prompt")
    images = [piece for piece in pieces if isinstance(piece, Image)]
    assert [(image.source, image.param) for image in images] == [
        (source, f"prompt.multimodal_data.{number}") for number, source in enumerate(data)
    ]
    spelled = "".join(piece if isinstance(piece, str) else MEDIA_MARKER for piece in pieces)
    assert spelled == sent.prompt_string
    assert "" not in pieces


@given(st.integers(0, 4), st.integers(1, 4))
def test_more_or_fewer_images_than_markers_are_refused(markers: int, images: int) -> None:
    sent = PromptObject(prompt_string=f"Look{MEDIA_MARKER * markers}", multimodal_data=["AA=="] * images)
    if markers == images:
        assert len(sent.pieces("prompt")) == 1 + images
        return
    with pytest.raises(InvalidRequest, match=f"{markers} markers, but there are {images} images") as refusal:
        sent.pieces("prompt")
    assert refusal.value.param == "prompt.multimodal_data"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "AA==", "detail": "%s"}},
        {"type": "image_url", "image_url": "AA==", "detail": "%s"},
        {"type": "input_image", "image_url": "AA==", "detail": "%s"},
    ],
)
def test_an_image_of_low_detail_may_be_small(part: dict[str, Any]) -> None:
    def image(detail: str) -> Image:
        content = json.loads(json.dumps([part]).replace("%s", detail))
        message = ChatMessage.model_validate({"role": "user", "content": content}).to_message(0)
        return message.images[0]

    assert image("low").is_small
    assert not any(image(detail).is_small for detail in ("auto", "high", "original", ""))
    with pytest.raises(InvalidRequest, match="detail: one of auto, low, high") as refusal:
        image("lowest")
    assert refusal.value.param == "messages.0.content.0"
