"""Scenes of coloured shapes, digits or a word, of which a seed makes any number, and their pictures."""

import base64
import io
import math
import string
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo_model.source import Source

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 39, 40),
    "green": (44, 150, 60),
    "blue": (36, 90, 210),
    "yellow": (244, 208, 40),
    "black": (20, 20, 20),
    "orange": (245, 130, 32),
    "purple": (140, 60, 180),
}
SHAPES = ("circle", "square", "triangle", "star")
GROUNDS: tuple[Colour, ...] = (
    (255, 255, 255),
    (246, 240, 224),
    (226, 236, 250),
    (228, 245, 228),
    (250, 228, 234),
    (232, 232, 232),
)
SIZES = ((128, 128), (160, 96), (96, 160), (144, 112), (112, 144))  # pixels: width and height; whole tokens, 64 at most
THINGS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
CHARACTERS = string.digits + string.ascii_letters
# of the numbers that say what is in a square: the first of things' middles, the first of characters, and their count
MIDDLES = 1 + len(THINGS)
LETTERS = MIDDLES + len(THINGS)
CONTENTS = LETTERS + len(CHARACTERS)
SQUARE = 8  # pixels
_SHADE = 14  # by which each part of a colour may differ
_FINE = 4  # so many times larger a scene is drawn, for smooth edges
_GAP = 1.12  # of the sum of two radii, at least


@dataclass(frozen=True)
class Thing:
    """A shape, where its middle is and how far it reaches, in parts of the scene's shorter side."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """What it is called: "red circle"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What is to be drawn: things, or a text."""

    width: int
    height: int
    things: tuple[Thing, ...] = ()
    text: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def from_left(self) -> list[Thing]:
        """The things in the order in which they are named."""
        return sorted(self.things, key=lambda thing: thing.x)


def placed(source: Source, names: list[tuple[str, str]]) -> Scene:
    """Put things of these colours and shapes anywhere, none over another."""
    width, height = source.any(SIZES)
    short = min(width, height)
    largest = 0.36 if len(names) == 1 else 0.24 if len(names) < 4 else 0.17
    while True:
        things: list[Thing] = []
        for colour, shape in names:
            radius = source.rng.uniform(0.11, largest)
            x = source.rng.uniform(radius, width / short - radius)
            y = source.rng.uniform(radius, height / short - radius)
            if all(math.hypot(x - one.x, y - one.y) > _GAP * (radius + one.radius) for one in things):
                things.append(Thing(colour, shape, x, y, radius))
        if len(things) == len(names):
            return Scene(width, height, tuple(things))


def written(source: Source, text: str) -> Scene:
    """Have a text written."""
    return Scene(*source.any(SIZES), text=text)


class Drawing(NamedTuple):
    """A picture, and what is in the middle of each of its squares of `SQUARE` pixels (rows, columns), uint8.

    0 is the ground, then come the things, the squares where their middles are, and the characters that there are.
    """

    image: Image.Image
    contents: np.ndarray


def draw(source: Source, scene: Scene) -> Drawing:
    """Draw a scene: shades of colours, grounds, fonts' sizes and turns are drawn from the source."""
    ground = source.any(GROUNDS)
    image = Image.new("RGB", (scene.width * _FINE, scene.height * _FINE), ground)
    marks = Image.new("L", image.size)
    canvases = ImageDraw.Draw(image), ImageDraw.Draw(marks)
    short = min(scene.width, scene.height) * _FINE
    for thing in scene.things:
        colour = _shade(source, COLOURS[thing.colour])
        turn = source.rng.uniform(-0.3, 0.3) if thing.shape != "circle" else 0.0
        for canvas, fill in zip(canvases, (colour, 1 + THINGS.index(thing.name)), strict=True):
            _shape(canvas, thing.shape, (thing.x * short, thing.y * short), thing.radius * short, turn, fill)
    if scene.text:
        _write(source, image.size, *canvases, scene.text)
    middle, step = SQUARE * _FINE // 2, SQUARE * _FINE
    contents = np.asarray(marks)[middle::step, middle::step].copy()
    for thing in scene.things:  # each has one middle, however large it is: so they can be counted
        contents[int(thing.y * short / step), int(thing.x * short / step)] = MIDDLES + THINGS.index(thing.name)
    return Drawing(image.resize((scene.width, scene.height), Image.Resampling.BOX), contents)


def _shade(source: Source, colour: Colour) -> Colour:
    red, green, blue = (max(0, min(255, part + source.rng.randint(-_SHADE, _SHADE))) for part in colour)
    return red, green, blue


def _shape(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    middle: tuple[float, float],
    radius: float,
    turn: float,
    fill: Colour | int,
) -> None:
    x, y = middle
    if shape == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return
    corners, start = {"square": (4, math.pi / 4), "triangle": (3, -math.pi / 2), "star": (10, -math.pi / 2)}[shape]
    points = []
    for corner in range(corners):
        reach = radius * (0.42 if shape == "star" and corner % 2 else 1.0)
        angle = start + turn + 2 * math.pi * corner / corners
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    canvas.polygon(points, fill=fill)


def _write(
    source: Source, size: tuple[int, int], canvas: ImageDraw.ImageDraw, marks: ImageDraw.ImageDraw, text: str
) -> None:
    """Write a text as large as fits or smaller, in one of the dark colours."""
    room = source.rng.uniform(0.55, 0.9) * size[0]
    font = ImageFont.load_default(100)
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    font = ImageFont.load_default(min(100 * room / (right - left), 100 * 0.8 * size[1] / (bottom - top)))
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    x = source.rng.uniform(0, size[0] - (right - left)) - left
    y = source.rng.uniform(0, size[1] - (bottom - top)) - top
    colour = _shade(source, COLOURS[source.any(("black", "red", "blue", "purple", "green"))])
    canvas.text((x, y), text, font=font, fill=colour, stroke_width=source.any((0, 0, _FINE // 2)), stroke_fill=colour)
    for number, character in enumerate(text):
        start, end = (x + canvas.textlength(text[:count], font=font) for count in (number, number + 1))
        marks.rectangle((start, y + top, end, y + bottom), fill=LETTERS + CHARACTERS.index(character))


def as_png(image: Image.Image) -> str:
    """A picture as base64 of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def pixels(image: Image.Image) -> np.ndarray:
    """The numbers of a picture (height, width, 3), uint8."""
    return np.asarray(image.convert("RGB"))
