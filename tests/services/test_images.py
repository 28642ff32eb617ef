"""Images as they come: what is shown of each kind, and what is refused before it costs anything."""

import base64
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from app.services import images
from app.services.errors import InvalidImage
from app.services.generation import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(picture: Any, kind: str = "PNG", **options: Any) -> Image:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image(base64.b64encode(file.getvalue()).decode(), "messages.0.content.1")


def shown(image: Image) -> Any:
    return images.pixels(images.read(image))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_each_format_is_decoded_whatever_it_is_said_to_be(kind: str) -> None:
    image = encoded(Pillow.new("RGB", (12, 8), RED), kind)
    heads = ("image/png", "image/x-any", "application/octet-stream", "IMAGE/PNG;charset=utf-8", "")
    in_lines = base64.encodebytes(base64.b64decode(image.source)).decode()
    sources = [f"data:{head};base64,{image.source}" for head in heads]
    for source in (image.source, in_lines, in_lines.replace("\n", "\r\n"), *sources):
        pixels = shown(Image(source))
        assert pixels.shape == (8, 12, 3)
        assert np.abs(pixels[4, 6].astype(int) - RED).max() < 4


def test_an_image_is_turned_as_its_exif_says() -> None:
    picture = Pillow.new("RGB", (80, 40), BLUE)
    picture.paste(RED, (0, 0, 80, 20))
    exif = Pillow.Exif()
    exif[0x0112] = 6
    image = images.read(encoded(picture, "JPEG", exif=exif, quality=95))
    assert (image.width, image.height) == (40, 80)
    pixels = images.pixels(image)
    assert pixels.shape == (80, 40, 3)
    assert pixels[40, 35, 0] > 200
    assert pixels[40, 5, 2] > 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0II"])
def test_an_image_whose_exif_is_broken_is_shown_as_it_lies(kind: str, exif: bytes) -> None:
    assert shown(encoded(Pillow.new("RGB", (12, 8), RED), kind, exif=exif)).shape == (8, 12, 3)


def test_the_pixels_of_an_image_are_not_decoded_to_know_its_size() -> None:
    file = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "PNG")
    broken = file.getvalue()[:2000]
    image = images.read(Image(base64.b64encode(broken).decode()))
    assert (image.width, image.height) == (40, 40)
    with pytest.raises(InvalidImage):
        images.pixels(image)


def test_what_is_transparent_is_white() -> None:
    assert list(shown(encoded(Pillow.new("RGBA", (4, 4), (255, 0, 0, 0))))[0, 0]) == [255, 255, 255]
    palette = Pillow.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert list(shown(encoded(palette, "GIF", transparency=0))[0, 0]) == [255, 255, 255]


def test_sixteen_bits_of_grey_become_eight() -> None:
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert shown(encoded(Pillow.fromarray(grey)))[0, :, 0].tolist() == [0, 100, 255]


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [Pillow.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    assert list(shown(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0]) == list(RED)


def test_the_same_file_has_the_same_digest_and_no_other_one() -> None:
    one, again, other = (encoded(Pillow.new("RGB", (4, 4), colour)) for colour in (RED, RED, BLUE))
    assert images.read(one).digest == images.read(again).digest != images.read(other).digest


def bomb(side: int) -> str:
    """Give a PNG of one bit a pixel whose file is tiny."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + side // 8) * 64)  # not even whole: nothing of it is to be read
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    ).decode()


def eps() -> str:
    return base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n").decode()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (bomb(9000), "million pixels"),
        (bomb(16_000), "million pixels"),
        (bomb(60_000), "million pixels"),
        (eps(), "none of"),
        (base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "none of"),
        ("", "empty"),
        ("AAAA AAAA", "base64"),
        ("A" * (28 * 2**20), "20 MiB"),
        ("https://tiles.example/a.png", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("/etc/passwd", "base64"),
        ("data:image/png,raw", "not fetched"),
        (encoded(Pillow.new("RGB", (2001, 10))).source, "long and thin"),
        (encoded(Pillow.new("RGB", (300, 300), RED)).source[:200], ""),
    ],
)
def test_what_is_no_image_is_refused_at_once_with_its_place(source: str, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidImage) as refusal:
        shown(Image(source, "messages.0.content.1"))
    assert reason in refusal.value.message
    assert refusal.value.param == "messages.0.content.1"
    assert time.process_time() - began < 2  # a pixel of the bombs would take longer, and gigabytes


def files() -> dict[str, bytes]:
    """Give a small picture in each format, and animated."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, 4), dtype=np.uint8)
    picture = Pillow.fromarray(pixels)
    options: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {}, "WEBP": {}, "GIF": {}}
    options["GIF"] = {"save_all": True, "append_images": [picture.rotate(90)]}
    return {
        kind: base64.b64decode(encoded(picture.convert("RGB") if kind == "JPEG" else picture, kind, **more).source)
        for kind, more in options.items()
    }


FILES = files()


@settings(deadline=None, max_examples=300)
@given(data=st.data(), kind=st.sampled_from(sorted(FILES)))
def test_whatever_a_file_holds_it_is_shown_or_refused_with_its_place(data: st.DataObject, kind: str) -> None:
    """Cut short, with bytes that are others, and with bytes that do not belong there."""
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    place = data.draw(st.integers(0, len(content)))
    content[place:place] = data.draw(st.binary(max_size=20))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        pixels = shown(Image(base64.b64encode(content).decode(), "messages.0.content.1"))
    except InvalidImage as error:
        assert error.param == "messages.0.content.1"
        assert len(error.message) < 200
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


@settings(max_examples=300)
@given(st.text() | st.text("ABab01+/= \n%:", min_size=1))
def test_whatever_a_source_is_it_is_refused_with_its_place(source: str) -> None:
    with pytest.raises(InvalidImage) as refusal:
        shown(Image(source, "messages.0.content.1"))
    assert refusal.value.param == "messages.0.content.1"


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(width: int, height: int) -> None:
    content = bytearray(FILES["PNG"])
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(InvalidImage, match=f"{width} x {height}|decoded|none of"):
        shown(Image(base64.b64encode(content).decode()))
