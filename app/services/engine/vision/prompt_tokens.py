"""Tokenizes prompts with images: each is a run of one token, between the texts that its family puts around it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from app.services.engine.model.image_markers import digest_of, split
from app.services.engine.vision.prompt_images import PromptImage, PromptImages
from app.services.generation import EncodedImage

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision


def tokenize_with_images(
    parts: Sequence[str | int],
    images: Mapping[bytes, EncodedImage],
    vision: "Vision",
    tokenize: Callable[[str], list[int]],
    tokenize_first: Callable[[str], list[int]],
) -> tuple[list[int], PromptImages]:
    """Give the tokens of texts, in which markers stand for images, and of ids; and where the images are.

    What a client writes as text is text, even if it reads like an image: only markers stand for images. The text that
    a prompt begins with is tokenized in its own way.
    """
    tokens: list[int] = []
    placed: list[PromptImage] = []
    encode = tokenize_first if isinstance(parts[0], str) else tokenize
    text = ""  # up to the next image or id, to be tokenized as a whole
    for part in (one for each in parts for one in (split(each) if isinstance(each, str) else (each,))):
        if isinstance(part, int):
            tokens += [*encode(text), part]
            text, encode = "", tokenize
        elif (digest := digest_of(part)) is None:
            text += part
        else:
            tokens += encode(text + vision.family.before)
            image = vision.placed(images[digest], len(tokens))
            placed.append(image)
            tokens += [vision.placeholder] * image.length
            text, encode = vision.family.after, tokenize
    return tokens + encode(text), PromptImages(tuple(placed))
