"""Images as clients send them: base64 is read, the header checked, pixels decoded. Only here is Pillow used."""

import base64
import binascii
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from app.services.errors import InvalidImage
from app.services.generation import EncodedImage, Image

Pixels = npt.NDArray[np.uint8]  # (height, width, 3)

Pillow.MAX_IMAGE_PIXELS = None  # checked here, where it is no mere warning

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MOST_BYTES = 20 * 2**20  # of one image, encoded
MOST_PIXELS = 50_000_000  # of one image; a file of 10 kB may hold a hundred times as many
_LONGEST_SIDE = 16_384  # pixels
_LONGEST_SHAPE = 200  # how often the short side may fit into the long one
_DATA_URL = re.compile(r"^data:[\w.+/-]*(;[\w.+-]+=[\w.+-]*)*;base64,", re.IGNORECASE)  # whatever it says it is
_LONGEST_HEAD = 64  # characters of a data URL before its data
_URL = re.compile(r"[A-Za-z][\w+.-]*:")
_ORIENTATION = 0x0112  # of EXIF
_TURNS: Mapping[object, Pillow.Transpose] = {  # by its values
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


def read(image: Image) -> EncodedImage:
    """Decode base64 and check the header; no pixel is decoded. Raises InvalidImage."""
    data = _decode(image)
    with _explained(image.param), _open(data) as opened:
        width, height = opened.size
        if min(width, height) < 1 or max(width, height) > _LONGEST_SIDE or width * height > MOST_PIXELS:
            most = f"{MOST_PIXELS // 10**6} million pixels, {_LONGEST_SIDE} a side"
            raise InvalidImage(f"an image of {width} x {height}; the most are {most}", param=image.param)
        if max(width, height) > _LONGEST_SHAPE * min(width, height):
            raise InvalidImage(f"an image of {width} x {height} is too long and thin", param=image.param)
        if _orientation(opened) in (5, 6, 7, 8):
            width, height = height, width
    return EncodedImage(data, blake2b(data, digest_size=16).digest(), width, height, image.param, image.fetched)


def resized(image: EncodedImage, width: int, height: int) -> EncodedImage:
    """Have an image shown in another size; it has a digest of its own then."""
    if (width, height) == (image.width, image.height):
        return image
    digest = blake2b(image.digest + f"{width} x {height}".encode(), digest_size=16).digest()
    return replace(image, width=width, height=height, digest=digest)


def pixels(image: EncodedImage) -> Pixels:
    """Decode what is to be shown: the first frame, turned as EXIF says, over white. Raises InvalidImage."""
    with _explained(image.param), _open(image.data) as opened:
        turn = _TURNS.get(_orientation(opened))
        opened.load()
        shown, size = _over_white(opened if turn is None else opened.transpose(turn)), (image.width, image.height)
        return np.asarray(shown if shown.size == size else shown.resize(size, Pillow.Resampling.LANCZOS))


def stretched(shown: Pixels, width: int, height: int, resampling: int) -> Pixels:
    """Resize pixels, whatever becomes of their shape; `resampling` is one of Pillow's numbers."""
    return np.asarray(Pillow.fromarray(shown).resize((width, height), Pillow.Resampling(resampling)))


def _decode(image: Image) -> bytes:
    if isinstance(image.source, bytes):
        return image.source
    text = _DATA_URL.sub("", image.source[:_LONGEST_HEAD]) + image.source[_LONGEST_HEAD:]
    if _URL.match(text):
        flag = ", or start the server with --allow-image-urls" if text[:4].lower() == "http" else ""
        raise InvalidImage(f"images are not fetched: send it as a data URL, in base64{flag}", param=image.param)
    if len(text) > MOST_BYTES * 4 // 3 + 4:
        raise InvalidImage(f"an image of more than {MOST_BYTES // 2**20} MiB", param=image.param)
    try:
        data = base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)  # programs write lines of it
    except (binascii.Error, ValueError):
        raise InvalidImage("the image is no base64", param=image.param) from None
    if not data:
        raise InvalidImage("the image is empty", param=image.param)
    return data


def _open(data: bytes) -> Pillow.Image:
    return Pillow.open(io.BytesIO(data), formats=FORMATS)


def _orientation(opened: Pillow.Image) -> object:
    """Give the orientation that EXIF before the pixels says, none of which is decoded; broken EXIF says nothing."""
    try:
        return Pillow.Image.getexif(opened).get(_ORIENTATION)  # that of PNG decodes them, in search of more
    except Exception:
        return None


@contextmanager
def _explained(param: str) -> Iterator[None]:
    """Say of whatever is wrong with a file that it is."""
    try:
        yield
    except InvalidImage:
        raise
    except UnidentifiedImageError:
        raise InvalidImage(f"the image is none of {', '.join(FORMATS)}", param=param) from None
    except Exception as error:  # whatever a decoder makes of a broken file
        raise InvalidImage(f"the image cannot be decoded: {str(error)[:100]}", param=param) from None


def _over_white(image: Pillow.Image) -> Pillow.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image, dtype=np.uint32) // 257
        return Pillow.fromarray(np.minimum(grey, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    white = Pillow.new("RGBA", with_alpha.size, "white")
    return Pillow.alpha_composite(white, with_alpha).convert("RGB")
