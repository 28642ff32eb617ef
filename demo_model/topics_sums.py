"""Small sums and counting."""

from demo_model.conversation import Conversation
from demo_model.source import Source


def _operands(source: Source) -> tuple[str, int, int, int]:
    kind = source.any(("plus", "plus", "plus", "minus", "minus", "times"))
    top = source.any((9, 9, 12, 20)) if kind != "times" else source.any((5, 9, 9, 10))
    a, b = source.rng.randint(0, top), source.rng.randint(0, top)
    if kind == "minus":
        a, b = max(a, b), min(a, b)
    return kind, a, b, a + b if kind == "plus" else a - b if kind == "minus" else a * b


def sums(source: Source) -> Conversation:
    """One to four sums in a row."""
    talk = Conversation("sums")
    for _ in range(source.rng.randint(1, 4)):
        kind, a, b, result = _operands(source)
        sign = {"plus": "+", "minus": "-", "times": "*"}[kind]
        answer = f"{a} {sign} {b} = {result}"
        talk.user(source.say(kind).format(a=a, b=b)).answer(answer, f"I compute {a} {sign} {b}.", answer)
    return talk


def counting(source: Source) -> Conversation:
    """Counting up to a small number."""
    n = source.rng.randint(2, 15)
    answer = ", ".join(str(i) for i in range(1, n + 1))
    return Conversation("count").user(source.say("count").format(n=n)).answer(answer, f"I count to {n}.", answer)
