"""Questions about scenes with their right answers: what the model is trained on, and, held out, asked."""

from collections.abc import Callable
from dataclasses import dataclass

from demo_model import words
from demo_model.source import Source, is_held_out
from demo_model.table import choices
from demo_vision import scenes
from demo_vision.scenes import COLOURS, SHAPES, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five")
SHORTEST, LONGEST = 3, 5  # letters of a word that is written
_CLEAR = 1.4  # so many times farther apart in one direction than in the other are things beside each other

Phrases = tuple[list[str], list[str]]  # what training says, and what only the evaluation does


def _about(side: str, *others: str) -> Phrases:
    starts = ("What is", "What can you see", "Which shape is", "Tell me what is")
    training = [f"{start} {where} the {{0}}?" for start in starts for where in (side, *others)]
    return training, [f"What stands {side} the {{0}}?"]


HOW_MANY = choices("""are there|do you see|can you see|are in the picture|are in the image|are drawn|are visible
can be seen|does the picture show|does it show|are there in all|has the picture|did you find|are on it|does it have""")
PHRASES: dict[str, Phrases] = {  # by kind
    "see": (
        choices("""What do you see?|What do you see?|What is in the picture?|Describe the picture.|Describe this image.
What is this?|What can be seen?|What is shown?|Tell me what you see.|What does the picture show?|What is in this image?
What does the image show?|Describe it.|Say what you see.|What is there?"""),
        ["What can you see here?", "Tell me what is in this picture."],
    ),
    "colour": (
        choices("""What colour is the {0}?|Which colour does the {0} have?|Tell me the colour of the {0}.
The {0} has which colour?|Of what colour is the {0}?|What is the colour of the {0}?|Say which colour the {0} has.
The {0}: what colour is it?|What colour does the {0} have?|Name the colour of the {0}.|And the colour of the {0}?
Can you tell me what colour the {0} is?"""),
        ["The {0} is of what colour?"],
    ),
    "shape": (
        choices("""Which shape is {0}?|What is the {0} thing?|What shape is the {0} thing?|What is the {0} one?
Which shape does the {0} one have?|Tell me the shape of the {0} one.|The {0} one is of which shape?
What shape does the {0} thing have?|Name the shape of the {0} one.|Can you tell me what shape the {0} thing is?
What kind of shape is the {0} one?"""),
        ["What shape is the {0} one?"],
    ),
    "its colour": (
        choices(
            """What colour is it?|What colour is this?|Tell me the colour.|Which colour is it?|Name its colour.
What colour is shown?"""
        ),
        ["Which colour is this?"],
    ),
    "its shape": (
        choices(
            """What shape is this?|Which shape is it?|Tell me the shape.|What shape is it?|Name its shape.
What shape is shown?"""
        ),
        ["Which shape is this?"],
    ),
    "left": _about("left of", "to the left of", "on the left of"),
    "right": _about("right of", "to the right of", "on the right of"),
    "above": _about("above", "over"),
    "below": _about("below", "under"),
    "count": (
        [
            *(f"How many {{0}} {where}?" for where in HOW_MANY),
            *(f"{start} how many {{0}} there are." for start in ("Tell me", "Say", "Count")),
            *choices("""How many {0}?|Count all {0}.|What is the number of {0}?|Count up all {0}.|Count {0}.
Give me the number of {0}.|Say how many {0} you can see.|Count these {0}.|Can you count the {0}?|Count all of the {0}.
How many of the {0} are there?|The {0}: how many are there?|Please count the {0} for me.|Count: how many {0} are there?
The number of {0}?|And how many {0}?|Which number of {0} is there?|What do you get if you count the {0}?
Look at what is shown: how many {0}?|In what is shown, how many {0} are there?
Of all that is shown, count the {0}.|This picture was shown to me. How many {0}?
In this picture, how many {0} are there?"""),
        ],
        ["Count the {0}.", "How many {0} are shown?"],
    ),
    "digits": (
        choices("""Which number is this?|What number do you see?|Read the number.|What is the number?
Tell me the number.|Which digits are these?"""),
        ["Which number is written?"],
    ),
    "word": (
        choices("""What does it say?|Read the word.|Which word is this?|What word do you see?|Read it.
What is written?|Tell me the word."""),
        ["Which word is written here?"],
    ),
    "letters": (
        ["Spell it.", "How is it spelled?", "Which letters are these?", "How do you spell it?"],
        ["Spell the word."],
    ),
}


@dataclass(frozen=True)
class Question:
    """A question about a scene, with its answer; `kind` is the row of the table that it counts for."""

    kind: str
    scene: Scene
    text: str
    answer: str
    about: str = ""  # what is counted: of many kinds there may be as many

    @property
    def fact(self) -> tuple[str, str, str]:
        """What the answer says, however it was asked for."""
        return self.kind, self.about, self.answer


Maker = Callable[[Source], Question]
Asker = Callable[[Source, Scene], Question | None]


def ask(source: Source, phrase: str, about: str = "") -> str:
    """A question of that kind, in words of this split."""
    training, held_out = PHRASES[phrase]
    return source.any(held_out if source.held_out else training).format(about)


def things(source: Source, count: int) -> Scene:
    """A scene of so many things, no two alike; its things are such as this split may have."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]

    def names() -> str:
        return ", ".join(sorted(f"{colour} {shape}" for colour, shape in source.rng.sample(pairs, count)))

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


def all_there(source: Source, scene: Scene) -> Question:
    """What is there: colour and shape of each thing, from left to right."""
    answer = listed([with_article(thing) for thing in scene.from_left])
    return Question("colour and shape", scene, ask(source, "see"), sentence(answer))


def one_of(source: Source, scene: Scene) -> Question | None:
    """The colour of a shape, or the shape of a colour; none where it is not there just once."""
    thing, its = source.any(scene.things), "its " if len(scene.things) == 1 and source.chance(0.5) else ""
    if source.chance(0.5):
        if sum(one.shape == thing.shape for one in scene.things) == 1:
            text = ask(source, f"{its}colour", thing.shape)
            return Question("colour and shape", scene, text, sentence(thing.colour))
    elif sum(one.colour == thing.colour for one in scene.things) == 1:
        text = ask(source, f"{its}shape", thing.colour)
        return Question("colour and shape", scene, text, sentence(f"a {thing.shape}"))
    return None


def other_of(source: Source, scene: Scene) -> Question | None:
    """What of two things is beside the other; none where it is as far across as down, or there are not two."""
    if len(scene.things) != 2:
        return None
    one, other = source.rng.sample(scene.things, 2)
    across, down = other.x - one.x, other.y - one.y
    if max(abs(across), abs(down)) < _CLEAR * min(abs(across), abs(down)):
        return None
    side = ("right" if across > 0 else "left") if abs(across) > abs(down) else ("below" if down > 0 else "above")
    return Question("left and above", scene, ask(source, side, one.name), sentence(with_article(other)))


def number_of(source: Source, scene: Scene) -> Question:
    """How many things there are, or how many of a shape or colour, which is harder and so asked more in training."""
    about, counted = "shapes", len(scene.things)
    if not source.chance(0.5 if source.held_out else 0.2):
        thing = source.any(scene.things)
        if source.chance(0.5):
            about, counted = f"{thing.shape}s", sum(one.shape == thing.shape for one in scene.things)
        else:
            about, counted = f"{thing.colour} shapes", sum(one.colour == thing.colour for one in scene.things)
    return Question("count", scene, ask(source, "count", about), sentence(NUMBERS[counted]), about)


def see(source: Source) -> Question:
    """What is there, of one to three things."""
    return all_there(source, things(source, source.any((1, 1, 2, 3))))


def colour_or_shape(source: Source) -> Question:
    """The colour or the shape of one of up to three things."""
    while (made := one_of(source, things(source, source.rng.randint(1, 3)))) is None:
        pass
    return made


def beside(source: Source) -> Question:
    """What of two things is left of, right of, above or below the other."""
    while (made := other_of(source, things(source, 2))) is None:
        pass
    return made


def count(source: Source) -> Question:
    """How many things, or things of a kind, of one to five."""
    pairs = [(source.any(tuple(COLOURS)), source.any(SHAPES)) for _ in range(source.rng.randint(1, 5))]
    if source.chance(0.4):
        pairs = [(colour, pairs[0][1]) for colour, _ in pairs]
    return number_of(source, scenes.placed(source, pairs))


def open_or(source: Source, phrase: str) -> str:
    """How to ask about what is written: now and then as about any picture."""
    return "see" if source.chance(0.15) else phrase


def digits(source: Source) -> Question:
    """A number of one to four digits; those of three and more are held out by their digits."""
    number = (
        source.fresh(lambda: str(source.rng.randint(100, 9999)))
        if source.chance(0.6)
        else str(source.rng.randint(0, 99))
    )
    return Question("digits", scenes.written(source, number), ask(source, open_or(source, "digits")), f"{number}.")


def word(source: Source) -> Question:
    """A short word, known or invented, as it is written."""
    pool = [one for one in WORDS if is_held_out(one) == source.held_out]
    text = source.any(pool) if source.chance(0.6) else source.fresh(lambda: short(source))
    if source.chance(0.3):
        text = text.upper() if source.chance(0.5) else text.capitalize()
    return read(source, scenes.written(source, text))


def read(source: Source, scene: Scene) -> Question:
    """The word of a scene."""
    return Question("words", scene, ask(source, open_or(source, "word")), f"It says: {scene.text}.")


def spell(source: Source, scene: Scene) -> Question:
    """The letters of a scene's word: whoever names them one by one learns sooner what they look like."""
    return Question("letters", scene, ask(source, "letters"), f"{'-'.join(scene.text)}.")


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
MAKERS: dict[Maker, float] = {see: 3.0, colour_or_shape: 3.0, beside: 1.5, count: 8.5, digits: 1.7, word: 4.5}
_MOST = 4  # questions about a scene
_COUNTS = 6  # the same where the first is how many: a scene has many counts
_OPEN = 0.5  # of the pictures in files are first asked about as a whole: mostly an agent is


def question(source: Source) -> Question:
    """Any question."""
    return source.rng.choices(list(MAKERS), list(MAKERS.values()))[0](source)


def conversation(source: Source, *, is_file: bool = False) -> list[Question]:
    """One to six different questions about one scene; what is held out of one is not asked as another."""
    made = [see(source) if is_file and source.chance(_OPEN) else question(source)]
    first, scene = made[0], made[0].scene
    if first.kind == "words":
        return [*made, spell(source, scene)] if source.chance(0.5) else [spell(source, scene), *made]
    if scene.text:
        return made
    # a scene of two or three things to count may be of those that are held out where things are named
    may_be_named = first.kind != "count" or len(scene.things) > 3
    others: list[Asker] = [number_of, number_of, all_there, one_of, one_of] if may_be_named else [number_of]
    if first.kind != "count":
        others.append(other_of)
    most = _COUNTS if first.kind == "count" else _MOST
    for _ in range(most * source.any((1, 2))):
        more = source.any(others)(source, scene)
        if more is not None and more.fact not in {one.fact for one in made} and len(made) < most:
            made.append(more)
    if not is_file:
        source.rng.shuffle(made)
    return made
