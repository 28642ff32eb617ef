"""How much memory a tower takes while it computes an image."""

from app.services.engine.vision.family import Config

_WIDE, _INNER = 13, 5  # arrays of the width of a layer, and of its inner one, that are there at a time; measured


def peak_bytes(vision: Config, patches: int, itemsize: int) -> int:
    """Give the bytes for an image of so many patches, beside the weights; `vision` is `vision_config`.

    It counts attention whose scores are written down, as MLX does it for most sizes of heads: an upper bound.
    """
    width = vision.get("hidden_size") or vision.get("embed_dim") or 1024
    inner = vision.get("intermediate_size") or 4 * width
    heads = vision.get("num_attention_heads") or vision.get("num_heads") or 16
    pixels = numbers_of_patch(vision)
    return int(itemsize * patches * (pixels + _WIDE * width + _INNER * inner + heads * patches))


def count_patches(vision: Config, numbers: int) -> int:
    """Count the patches of an image of which a processor has made so many numbers."""
    return numbers // numbers_of_patch(vision)


def numbers_of_patch(vision: Config) -> int:
    """Count the numbers of a patch: channels, moments, rows, columns."""
    return int(3 * (vision.get("patch_size") or 14) ** 2 * (vision.get("temporal_patch_size") or 1))
