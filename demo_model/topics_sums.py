"""Small sums and counting."""

from demo_model.conversation import Conversation
from demo_model.source import Source

SIGNS = {"plus": "+", "minus": "-", "times": "*"}
TOO_LARGE = "That is too large for me: I know small sums only."


def _operands(source: Source) -> tuple[str, int, int, int]:
    kind = source.any(("plus", "plus", "plus", "minus", "minus", "times"))
    top = source.any((9, 9, 12, 20)) if kind != "times" else source.any((5, 9, 9, 10))
    a, b = source.rng.randint(0, top), source.rng.randint(0, top)
    return _sum(kind, a, b)


def _sum(kind: str, a: int, b: int) -> tuple[str, int, int, int]:
    if kind == "minus":
        a, b = max(a, b), min(a, b)
    return kind, a, b, a + b if kind == "plus" else a - b if kind == "minus" else a * b


def _to_twenty(source: Source) -> tuple[str, int, int, int]:
    """A sum of two numbers whose result is 20 at most, or a difference from 20 at most."""
    a = source.rng.randint(0, 20)
    if source.chance(0.6):
        return _sum("plus", a, source.rng.randint(0, 20 - a))
    return _sum("minus", a, source.rng.randint(0, a))


def _turn(source: Source, talk: Conversation, one: tuple[str, int, int, int]) -> None:
    kind, a, b, result = one
    answer = f"{a} {SIGNS[kind]} {b} = {result}"
    talk.user(source.say(kind).format(a=a, b=b)).answer(answer, f"I compute {a} {SIGNS[kind]} {b}.", answer)


def sums(source: Source) -> Conversation:
    """One to four sums in a row."""
    talk = Conversation("sums")
    for _ in range(source.rng.randint(1, 4)):
        _turn(source, talk, _operands(source))
    return talk


def to_twenty(source: Source) -> Conversation:
    """One to four sums whose result is 20 at most."""
    talk = Conversation("sums")
    for _ in range(source.rng.randint(1, 4)):
        _turn(source, talk, _to_twenty(source))
    return talk


def drill(source: Source) -> Conversation:
    """A dozen sums, bare: nothing but the numbers is to be learnt."""
    talk = Conversation("sum drill")
    for _ in range(source.rng.randint(8, 14)):
        kind, a, b, result = _operands(source) if source.chance(0.4) else _to_twenty(source)
        talk.user(f"{a} {SIGNS[kind]} {b}").answer(f"{a} {SIGNS[kind]} {b} = {result}", f"I compute {a} and {b}.")
    return talk


def large(source: Source) -> tuple[str, int, int, int]:
    """A sum that is too large to be known."""
    return _sum(source.any(tuple(SIGNS)), source.rng.randint(31, 999), source.rng.randint(31, 999))


def too_large(source: Source) -> Conversation:
    """A sum that is beyond what it knows, which it says."""
    kind, a, b, _ = large(source)
    said = source.say(kind).format(a=a, b=b)
    return Conversation("sums").user(said).answer(TOO_LARGE, "I do not know sums of large numbers.", "too large")


def counting(source: Source) -> Conversation:
    """Counting up to a small number."""
    n = source.rng.randint(2, 15)
    answer = ", ".join(str(i) for i in range(1, n + 1))
    return Conversation("count").user(source.say("count").format(n=n)).answer(answer, f"I count to {n}.", answer)
