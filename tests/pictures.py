"""Pictures of shapes and words as somebody draws them, larger than those of the demo model's training."""

from demo_model.source import Source
from demo_vision.scenes import Scene, Thing, as_png, draw

SIZE = (640, 480)  # pixels


def shapes(*names: str) -> str:
    """Draw things ("red circle") from left to right, as base64 of a PNG."""
    share = SIZE[0] / SIZE[1] / len(names)
    things = tuple(
        Thing(*name.split(), x=(number + 0.5) * share, y=0.5, radius=min(0.3, 0.38 * share))
        for number, name in enumerate(names)
    )
    return _png(Scene(*SIZE, things))


def stacked(*names: str) -> str:
    """Draw things from top to bottom, as base64 of a PNG."""
    share = 1 / len(names)
    things = tuple(
        Thing(*name.split(), x=SIZE[0] / SIZE[1] / 2, y=(number + 0.5) * share, radius=0.38 * share)
        for number, name in enumerate(names)
    )
    return _png(Scene(*SIZE, things))


def written(text: str) -> str:
    """Write a text, as base64 of a PNG."""
    return _png(Scene(*SIZE, text=text))


def _png(scene: Scene) -> str:
    return as_png(draw(Source("a person's"), scene).image)
