"""The order of samplers, in the ways that llama.cpp and its clients write it."""

from app.services.generation import SAMPLERS

_LETTERS = dict(zip("edskypmxt", SAMPLERS, strict=True))
_NAMES = {name.replace("_", ""): name for name in SAMPLERS} | {
    "nucleus": "top_p",
    "temp": "temperature",
    "typ": "typ_p",
    "typical": "typ_p",
    "typicalp": "typ_p",
}


def parse(samplers: str | list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Give the samplers in their order, each once; and the names that are none.

    A text has names with semicolons between them, or a letter for each.
    """
    names = _split(samplers) if isinstance(samplers, str) else samplers
    order = dict.fromkeys(name for one in names if (name := _name(one)))
    return tuple(order), [one for one in names if not _name(one)]


def _split(text: str) -> list[str]:
    if ";" in text or _name(text):
        return [name for name in text.split(";") if name.strip()]
    return [_LETTERS.get(letter, letter) for letter in text]


def _name(text: str) -> str | None:
    return _NAMES.get(text.strip().lower().replace("_", "").replace("-", ""))
