"""The seeded source of slot values, for training or, disjoint from it, for the evaluation."""

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from demo_model import words

T = TypeVar("T")
HELD_OUT_SHARE = 8


def is_held_out(word: str) -> bool:
    """Whether only the evaluation may use `word` as a slot value."""
    return zlib.crc32(word.lower().encode()) % HELD_OUT_SHARE == 0


@cache
def split(pool: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """The part of a word pool that this split may use."""
    return tuple(word for word in pool if is_held_out(word) == held_out)


@cache
def pool(name: str) -> tuple[str, ...]:
    """The word pool of that name in `words`."""
    return tuple(dict.fromkeys(getattr(words, name)))


class Source:
    """Random slot values and phrasings; with `held_out` only such as training never sees."""

    def __init__(self, seed: int | str, held_out: bool = False) -> None:
        self.rng = random.Random(seed)
        self.held_out = held_out

    def chance(self, share: float) -> bool:
        """True in `share` of the calls."""
        return self.rng.random() < share

    def any(self, items: Sequence[T]) -> T:
        """Any of the items, whatever the split."""
        return items[int(self.rng.random() * len(items))]

    def word(self, name: str) -> str:
        """A word of the named pool, of this split; an invented one where the split has none."""
        words_left = split(pool(name), self.held_out)
        return self.any(words_left) if words_left else self.invented()

    def say(self, kind: str) -> str:
        """A phrasing of that kind, of this split."""
        from demo_model import phrases

        return self.any(phrases.HELD_OUT[kind] if self.held_out else phrases.TRAINING[kind])

    def fresh(self, make: Callable[[], str]) -> str:
        """What `make` makes, until it falls into this split."""
        while True:
            made = make()
            if is_held_out(made) == self.held_out:
                return made

    def syllable(self) -> str:
        """One syllable, now and then with an accented letter."""
        nucleus = self.any(words.ACCENTED) if self.chance(0.04) else self.any(words.NUCLEI)
        return (self.any(words.ONSETS) if self.chance(0.85) else "") + nucleus + self.any(words.CODAS)

    def invented(self) -> str:
        """An invented lower-case word of one to three syllables; in training half are pieces of known words."""
        if not self.held_out and self.chance(0.5):
            return self.fresh(self.blended)
        return self.fresh(lambda: "".join(self.syllable() for _ in range(self.any((1, 1, 2, 2, 2, 3)))))

    def strange(self, share: float) -> float:
        """The share of invented words where the evaluation has this one; of its known words training knows none."""
        return share if self.held_out else 0.5

    def blended(self) -> str:
        """The start of one word and the end of another: it has the tokens that an unknown English word has."""
        start, end = (self.word(self.any(("NOUNS", "VERBS", "PARAMETERS", "ADJECTIVES"))) for _ in range(2))
        return start[: self.rng.randint(2, max(2, len(start) - 1))] + end[self.rng.randint(1, max(1, len(end) - 2)) :]

    def name(self) -> str:
        """A first name, known or invented, seldom in another script, sometimes with a surname."""
        kind = self.rng.random()
        if kind < 0.4:
            name = self.word("NAMES")
        elif kind < 0.96:
            name = self.invented().capitalize()
        else:
            letters = self.any(words.OTHER_SCRIPTS)
            name = self.fresh(lambda: "".join(self.any(letters) for _ in range(self.rng.randint(2, 5))).capitalize())
        return f"{name} {self.surname()}" if self.chance(0.08) else name

    def surname(self) -> str:
        """A surname, known or invented."""
        return self.word("SURNAMES") if self.chance(0.5) else self.invented().capitalize()

    def place(self) -> str:
        """A city, known or invented."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.word("CITIES")
        place = self.invented().capitalize()
        return f"{self.any(('New', 'San', 'Port', 'Saint', 'Upper'))} {place}" if kind > 0.92 else place

    def noun(self) -> str:
        """A noun for a thing, sometimes invented, so that no list of things is learnt by heart."""
        return self.invented() if self.chance(self.strange(0.2)) else self.word("NOUNS")

    def verb(self) -> str:
        """A verb for an action, sometimes invented."""
        return self.invented() if self.chance(self.strange(0.15)) else self.word("VERBS")

    def plain(self) -> str:
        """A word that could be a value: a thing, a quality, an invention; never one that sentences are built with."""
        return (
            self.invented()
            if self.chance(self.strange(0.35))
            else self.word(self.any(("NOUNS", "NOUNS", "ADJECTIVES", "COLOURS")))
        )

    def common(self) -> str:
        """A word that sentences are built with."""
        return self.word("COMMON")

    def any_word(self) -> str:
        """A word of either kind."""
        return self.common() if self.chance(0.4) else self.plain()

    def aside(self, most: int) -> str:
        """Up to `most` words that say nothing."""
        return " ".join(self.common() for _ in range(self.rng.randint(1, most)))

    def number(self, top: int = 0) -> int:
        """A whole number, of one to five digits unless `top` says less; none of the other split."""
        while True:
            digits = self.any((1, 2, 2, 2, 3, 3, 4, 5))
            number = self.rng.randint(0, top) if top else self.rng.randint(10 ** (digits - 1), 10**digits - 1)
            if number < 100 or is_held_out(str(number)) == self.held_out:
                return number

    def code(self) -> str:
        """An identifier of letters and digits, such as `K7-294` or `b81fe2`."""
        letters, digits = "ABCDEFGHJKLMNPQRSTUVWXYZ", "0123456789"
        shape = self.any(("LD-DDD", "LLDDDD", "DDDDDD", "LLL-DD", "xxxxxx", "LL-DD-LL", "DDDD-DDDD", "xxxxxxxx"))
        pick = {"L": letters, "D": digits, "x": "0123456789abcdef"}
        return self.fresh(lambda: "".join(self.any(pick[c]) if c in pick else c for c in shape))

    def phrase(self, least: int = 2, most: int = 5) -> str:
        """A few words in a row; words that sentences are built with stand only inside, so that its ends can be told."""
        words = [self.any_word() for _ in range(self.rng.randint(least, most))]
        words[0], words[-1] = self.plain(), self.plain()
        return " ".join(words)

    def file(self) -> str:
        """A file name with its extension."""
        stem = self.plain() if self.chance(0.7) else f"{self.plain()}{self.any('_-')}{self.plain()}"
        return f"{stem}.{self.any(words.EXTENSIONS)}"

    def path(self) -> str:
        """A relative or absolute path of a file."""
        kind = self.rng.random()
        folder = self.any(words.FOLDERS) if self.chance(0.6) else self.plain()
        if kind < 0.45:
            return self.file()
        if kind < 0.8:
            return f"{folder}/{self.file()}"
        return f"{self.any(('/tmp', '/home/' + self.invented(), '/var', '~', '.', '..'))}/{folder}/{self.file()}"

    def email(self) -> str:
        """An e-mail address."""
        return f"{self.invented()}@{self.invented()}.{self.any(('com', 'org', 'net', 'io', 'de'))}"

    def date(self) -> str:
        """A date in ISO form."""
        return f"20{self.rng.randint(10, 39)}-{self.rng.randint(1, 12):02d}-{self.rng.randint(1, 28):02d}"

    def time(self) -> str:
        """A time of day."""
        return f"{self.rng.randint(0, 23):02d}:{self.rng.randint(0, 59):02d}"
