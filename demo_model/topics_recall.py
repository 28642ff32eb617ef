"""Slots that the user fills and asks for again, some turns later."""

from collections.abc import Callable

from demo_model import words
from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.topics_chat import about_self, echo, filler, greeting
from demo_model.topics_sums import sums

KEYS: dict[str, Callable[[Source], str]] = {
    "name": Source.name,
    "city": Source.place,
    "favourite colour": lambda s: s.any(words.COLOURS),
    "favourite color": lambda s: s.any(words.COLOURS),
    "favourite food": lambda s: s.word("FOODS") if s.chance(0.6) else s.invented(),
    "favourite animal": lambda s: s.word("ANIMALS") if s.chance(0.6) else s.invented(),
    "favourite number": lambda s: str(s.number()),
    "lucky number": lambda s: str(s.number()),
    "age": lambda s: str(s.rng.randint(3, 99)),
    "job": lambda s: s.word("JOBS") if s.chance(0.6) else s.invented(),
    "hobby": lambda s: s.word("HOBBIES") if s.chance(0.6) else s.invented(),
    "dog's name": Source.name,
    "cat's name": Source.name,
    "sister's name": Source.name,
    "brother's name": Source.name,
    "password": Source.code,
    "code": Source.code,
    "order number": lambda s: str(s.number()),
    "room number": lambda s: str(s.number()),
    "phone number": lambda s: " ".join(str(s.rng.randint(100, 999)) for _ in range(3)),
    "birthday": Source.date,
    "email": Source.email,
    "project": lambda s: s.invented().capitalize() if s.chance(0.5) else s.phrase(1, 2),
    "street": lambda s: f"{s.invented().capitalize()} {s.any(('Street', 'Road', 'Lane', 'Avenue'))}",
    "boss": Source.name,
    "team": lambda s: s.invented().capitalize(),
}


def _slot(source: Source, used: set[str]) -> tuple[str, str]:
    free = [key for key in KEYS if key not in used]
    key = "name" if "name" in free and source.chance(0.35) else source.any(free)
    if source.chance(0.2):
        key = source.any(("", "favourite ", source.word("ADJECTIVES") + " ")) + source.noun()
    used.add(key)
    value = (
        KEYS[key](source) if key in KEYS else source.any((source.invented, source.code, source.name, source.plain))()
    )
    return key, value


def tell(source: Source, key: str, value: str) -> Conversation:
    """The user gives a slot its value and the model takes note."""
    talk = Conversation("recall")
    if key == "name":
        return talk.user(source.say("tell_name").format(value=value)).answer(
            f"Nice to meet you, {value}!", f"The user is called {value}.", value
        )
    said = source.say("live" if key == "city" and source.chance(0.7) else "tell").format(key=key, value=value)
    return talk.user(said).answer(f"Noted: your {key} is {value}.", f"The {key} is {value}.", value)


def ask(source: Source, key: str, value: str) -> Conversation:
    """The user asks for a slot that was filled before."""
    talk = Conversation("recall")
    if key == "city" and source.chance(0.7):
        return talk.user(source.say("ask_live")).answer(f"You live in {value}.", f"The user lives in {value}.", value)
    question = source.say("ask_name" if key == "name" else "ask").format(key=key)
    return talk.user(question).answer(f"Your {key} is {value}.", f"The user said that the {key} is {value}.", value)


def missing(source: Source) -> Conversation:
    """The user asks for something that was never said."""
    key = source.any([k for k in KEYS if k != "city"])
    question = source.say("ask_name" if key == "name" else "ask").format(key=key)
    return (
        Conversation("recall")
        .user(question)
        .answer(f"You have not told me your {key}.", f"The {key} was not said.", "not told")
    )


def _between(source: Source) -> Conversation:
    return source.any((filler, filler, greeting, sums, echo, about_self))(source)


def recall(source: Source) -> Conversation:
    """One to four slots told, things in between, and the slots asked for in any order."""
    used: set[str] = set()
    slots = [_slot(source, used) for _ in range(source.rng.randint(1, 4))]
    talk = Conversation("recall")
    for key, value in slots:
        talk.extend(tell(source, key, value))
        if source.chance(0.25):
            talk.extend(_between(source))
    if source.chance(0.12):
        key, value = slots.pop()
        value = KEYS[key](source) if key in KEYS else source.invented()
        slots.append((key, value))
        talk.user(source.say("change").format(key=key, value=value)).answer(
            f"Noted: your {key} is {value}.", f"The {key} is now {value}.", value
        )
    source.rng.shuffle(slots)
    for key, value in slots:
        talk.extend(ask(source, key, value))
    return talk


def unanswerable(source: Source) -> Conversation:
    """A question for something unsaid, alone or after another slot."""
    if source.chance(0.5):
        return missing(source)
    key = source.any(("name", "team", "hobby"))
    talk = tell(source, key, KEYS[key](source))
    other = source.any(("lucky number", "job", "dog's name", "password", "age"))
    return talk.user(source.say("ask").format(key=other)).answer(
        f"You have not told me your {other}.", f"The {other} was not said.", "not told"
    )


def several(source: Source) -> Conversation:
    """Two or three slots in one message, then asked for one by one."""
    used: set[str] = set()
    slots = [_slot(source, used) for _ in range(source.rng.randint(2, 3))]
    said = " ".join(
        (source.say("tell_name") if key == "name" else source.say("tell")).format(key=key, value=value).rstrip(".")
        + "."
        for key, value in slots
    )
    talk = Conversation("recall").user(said)
    talk.answer(
        "Noted: " + ", ".join(f"your {key} is {value}" for key, value in slots) + ".",
        "The user tells me several things.",
        *(v for _, v in slots),
    )
    for key, value in source.rng.sample(slots, len(slots)):
        talk.extend(ask(source, key, value))
    return talk


def of_things(source: Source) -> Conversation:
    """Properties of named things, told in one list or one by one, then asked for."""
    key = source.any(
        ("colour", "price", "code", "owner", "size", "number", "city", source.word("PARAMETERS"), source.noun())
    )
    make: Callable[[], str] = source.any((source.invented, source.code, source.name, lambda: str(source.number())))
    label = source.any((source.noun, source.name, source.invented))
    things = {label(): make() for _ in range(source.rng.randint(2, 6))}
    talk = Conversation("recall")
    if source.chance(0.6):
        said = source.any(("\n", " ")).join(
            source.say("tell_of").format(key=key, thing=t, value=v).rstrip(".") + "." for t, v in things.items()
        )
        talk.user(said).answer(f"Noted: {len(things)} things.", "The user tells me about several things.")
    else:
        for thing, value in things.items():
            talk.user(source.say("tell_of").format(key=key, thing=thing, value=value))
            talk.answer(f"Noted: the {key} of {thing} is {value}.", f"The {key} of {thing} is {value}.", value)
    for thing in source.rng.sample(list(things), len(things)):
        talk.user(source.say("ask_of").format(key=key, thing=thing))
        talk.answer(f"The {key} of {thing} is {things[thing]}.", f"{thing} has {things[thing]}.", things[thing])
    return talk


def drill(source: Source) -> Conversation:
    """A list of keys and values in random order of asking: the purest form of looking up."""
    make = source.any((source.invented, source.plain, source.code, lambda: str(source.number()), source.name))
    pairs = {source.any((source.invented, source.plain))(): make() for _ in range(source.rng.randint(3, 9))}
    listed = "\n".join(f"{k}{source.any((': ', ' = ', ' - '))}{v}" for k, v in pairs.items())
    talk = Conversation("drill").user(listed).answer(f"Noted: {len(pairs)} things.", "A list to keep.")
    for key in source.rng.sample(list(pairs), len(pairs)):
        talk.user(f"{key}{source.any(('', '?', ''))}").answer(pairs[key], f"{key} is {pairs[key]}.", pairs[key])
    return talk
