"""Prompts with images as llama-server takes them: the text around the markers, and the images in their places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
