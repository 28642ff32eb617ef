"""Questions about scenes with their right answers: what the model is trained on, and, held out, asked."""

from collections.abc import Callable
from dataclasses import dataclass

from demo_model import words
from demo_model.source import Source, is_held_out
from demo_vision import scenes
from demo_vision.scenes import COLOURS, SHAPES, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five")
SHORTEST, LONGEST = 3, 5  # letters of a word that is written
_CLEAR = 1.4  # so many times farther apart in one direction than in the other are things beside each other

# By kind: what training says, and what only the evaluation does.
PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "see": (
        (
            "What do you see?",
            "What is in the picture?",
            "Describe the picture.",
            "Describe this image.",
            "What is this?",
        ),
        ("What can you see here?", "Tell me what is in this picture."),
    ),
    "colour": (("What colour is the {0}?", "Which colour does the {0} have?"), ("The {0} is of what colour?",)),
    "shape": (("Which shape is {0}?", "What is the {0} thing?"), ("What shape is the {0} one?",)),
    "left": (("What is left of the {0}?", "What is to the left of the {0}?"), ("What stands left of the {0}?",)),
    "right": (("What is right of the {0}?", "What is to the right of the {0}?"), ("What stands right of the {0}?",)),
    "above": (("What is above the {0}?", "What is over the {0}?"), ("What stands above the {0}?",)),
    "below": (("What is below the {0}?", "What is under the {0}?"), ("What stands below the {0}?",)),
    "count": (("How many {0} are there?", "How many {0} do you see?"), ("Count the {0}.",)),
    "digits": (("Which number is this?", "What number do you see?", "Read the number."), ("Which number is written?",)),
    "word": (("What does it say?", "Read the word.", "Which word is this?"), ("Which word is written here?",)),
}


@dataclass(frozen=True)
class Question:
    """A question about a scene, with its answer; `kind` is the row of the table that it counts for."""

    kind: str
    scene: Scene
    text: str
    answer: str


Maker = Callable[[Source], Question]


def ask(source: Source, phrase: str, about: str = "") -> str:
    """A question of that kind, in words of this split."""
    training, held_out = PHRASES[phrase]
    return source.any(held_out if source.held_out else training).format(about)


def things(source: Source, count: int) -> Scene:
    """A scene of so many things, no two alike; its things are such as this split may have."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]

    def names() -> str:
        made = source.rng.sample(pairs, count)
        return ", ".join(f"{colour} {shape}" for colour, shape in made)

    # two things or more are of combinations that training never sees, where they are held out
    text = source.fresh(names) if count > 1 else names()
    return scenes.placed(source, [(name.split()[0], name.split()[1]) for name in text.split(", ")])


def with_article(thing: Thing) -> str:
    """A thing's name with its article."""
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing.name}"


def listed(parts: list[str]) -> str:
    """Parts as a list in words."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """A text as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def see(source: Source) -> Question:
    """What is there: colour and shape of one to three things, from left to right."""
    scene = things(source, source.any((1, 1, 2, 3)))
    answer = listed([with_article(thing) for thing in scene.from_left])
    return Question("colour and shape", scene, ask(source, "see"), sentence(answer))


def colour_or_shape(source: Source) -> Question:
    """The colour of a shape, or the shape of a colour, that is there once."""
    while True:
        scene = things(source, source.rng.randint(1, 3))
        thing = source.any(scene.things)
        if source.chance(0.5):
            if sum(one.shape == thing.shape for one in scene.things) == 1:
                return Question("colour and shape", scene, ask(source, "colour", thing.shape), sentence(thing.colour))
        elif sum(one.colour == thing.colour for one in scene.things) == 1:
            return Question("colour and shape", scene, ask(source, "shape", thing.colour), sentence(f"a {thing.shape}"))


def beside(source: Source) -> Question:
    """What of two things is left of, right of, above or below the other."""
    while True:
        scene = things(source, 2)
        one, other = source.rng.sample(scene.things, 2)
        across, down = other.x - one.x, other.y - one.y
        if max(abs(across), abs(down)) < _CLEAR * min(abs(across), abs(down)):
            continue
        side = ("right" if across > 0 else "left") if abs(across) > abs(down) else ("below" if down > 0 else "above")
        return Question("left and above", scene, ask(source, side, one.name), sentence(with_article(other)))


def count(source: Source) -> Question:
    """How many things there are, up to five, or how many of a shape or colour."""
    amount = source.rng.randint(1, 5)
    pairs = [(source.any(tuple(COLOURS)), source.any(SHAPES)) for _ in range(amount)]
    if source.chance(0.4):
        pairs = [(colour, pairs[0][1]) for colour, _ in pairs]
    scene = scenes.placed(source, pairs)
    if source.chance(0.5):
        return Question("count", scene, ask(source, "count", "shapes"), sentence(NUMBERS[amount]))
    thing = source.any(scene.things)
    if source.chance(0.5):
        same = sum(one.shape == thing.shape for one in scene.things)
        return Question("count", scene, ask(source, "count", f"{thing.shape}s"), sentence(NUMBERS[same]))
    same = sum(one.colour == thing.colour for one in scene.things)
    return Question("count", scene, ask(source, "count", f"{thing.colour} shapes"), sentence(NUMBERS[same]))


def digits(source: Source) -> Question:
    """A number of one to four digits; those of three and more are held out by their digits."""
    number = (
        source.fresh(lambda: str(source.rng.randint(100, 9999)))
        if source.chance(0.6)
        else str(source.rng.randint(0, 99))
    )
    return Question("digits", scenes.written(source, number), ask(source, "digits"), f"{number}.")


def word(source: Source) -> Question:
    """A short word, known or invented, as it is written."""
    pool = [one for one in WORDS if is_held_out(one) == source.held_out]
    text = source.any(pool) if source.chance(0.6) else source.fresh(lambda: short(source))
    if source.chance(0.3):
        text = text.upper() if source.chance(0.5) else text.capitalize()
    return Question("words", scenes.written(source, text), ask(source, "word"), f"It says: {text}.")


def short(source: Source) -> str:
    """An invented word of a few letters."""
    while True:
        made = "".join(source.syllable() for _ in range(source.any((1, 2))))
        if SHORTEST <= len(made) <= LONGEST and made.isascii():
            return made


WORDS = sorted(
    one
    for one in {*words.NOUNS, *words.ADJECTIVES, *words.VERBS, *words.ANIMALS, *words.FOODS}
    if SHORTEST <= len(one) <= LONGEST and one.isascii() and one.isalpha()
)
MAKERS: dict[Maker, float] = {see: 3.0, colour_or_shape: 2.0, beside: 2.5, count: 2.5, digits: 3.0, word: 5.0}


def question(source: Source) -> Question:
    """Any question."""
    return source.rng.choices(list(MAKERS), list(MAKERS.values()))[0](source)
