"""Drills: tools that mean nothing, chosen by their descriptions and given values by the names of their parameters."""

from dataclasses import replace
from typing import Any

from demo_model import like_words
from demo_model.conversation import Call, Conversation
from demo_model.schemas import Parameter, Skill, given, some_words, spoken, styled, typed
from demo_model.skills import other_name, small_word
from demo_model.source import Source
from demo_model.topics_tools import call_turn, joined


def binding(source: Source) -> Conversation:
    """One tool whose parameters mean nothing, called again and again; what is said tells which value goes where."""
    one = Skill(other_name(source), source.phrase(1, 3), _unknown_parameters(source, 2, 4), ())
    talk = Conversation("binding", tools=[one.as_tool()])
    for _ in range(source.rng.randint(3, 6)):
        values = _values(source, one)
        clauses = [given(source).format(p=name, v=spoken(value)) for name, value in values.items()]
        said = source.any((", ", ", ", " and ", "; ", ". ")).join(source.rng.sample(clauses, len(clauses)))
        said = f"{one.description} {said}".strip() + source.any(("", "", "."))
        call_turn(talk, said, [{"name": one.name, "arguments": values}])
    return talk


def lookup(source: Source) -> Conversation:
    """Tools that mean nothing and take nothing, called for by some words of their descriptions, again and again."""
    have = _unknown_skills(source, 0)
    talk = Conversation("lookup", tools=[one.as_tool() for one in have])
    for _ in range(source.rng.randint(4, 8)):
        said, call = _hinted(source, source.any(have), have)
        call_turn(talk, _amid(source, said), [call])
    return talk


def choice(source: Source) -> Conversation:
    """The same with values, with descriptions in other forms than what is said, and with two asked for at once."""
    have = _unknown_skills(source, source.any((0, 0, 1, 2)))
    talk = Conversation("choice", tools=[replace(one, description=_told(source, one)).as_tool() for one in have])
    for _ in range(source.rng.randint(4, 8)):
        chosen = source.rng.sample(have, 2) if len(have) > 1 and source.chance(0.25) else [source.any(have)]
        wanted = [_hinted(source, one, have) for one in chosen]
        said = joined(source, *(said for said, _ in wanted)) if len(wanted) > 1 else _amid(source, wanted[0][0])
        call_turn(talk, said, [call for _, call in wanted])
    return talk


def like(source: Source) -> Conversation:
    """Tools asked for in other words than their descriptions have: the verb, the thing or both are like theirs."""
    have = _like_skills(source)
    talk = Conversation("like words", tools=[one.as_tool() for one in have])
    for _ in range(source.rng.randint(3, 6)):
        said, call = source.any(have).request(source)
        call_turn(talk, source.say("please").format(do=said) if source.chance(0.5) else said, [call])
    return talk


def _like_skills(source: Source) -> list[Skill]:
    """Two to five tools of different verbs; of different things, or all of one thing, which then tells nothing."""
    verbs, nouns, forms = (
        like_words.pairs(groups, source.held_out) for groups in (like_words.VERBS, like_words.NOUNS, like_words.FORMS)
    )
    one_thing = source.any(nouns)[:1] * 2 if source.chance(0.3) else None
    have: list[Skill] = []
    used: set[str] = set()
    for _ in range(source.rng.randint(2, 5)):
        verb = source.any(forms if source.chance(0.3) else verbs)
        noun = one_thing or source.any(nouns)
        if used.isdisjoint(verb if one_thing else (*verb, *noun)):
            used |= {other for word in (*verb, *noun) for other in like_words.relatives(word)}
            have.append(_like_skill(source, verb, noun))
    return have


def _like_skill(source: Source, verb: tuple[str, str], noun: tuple[str, str]) -> Skill:
    """A tool described by the first of each two words, and asked for by the second of one or both."""
    kind = source.rng.random()  # the verb is another word below 0.7, the thing above 0.4
    thing = noun[kind > 0.4]
    article = source.any(("the", "a", "my", "this"))
    said = _done(source, verb[kind < 0.7 or noun[0] == noun[1]], f"{article} {thing}")
    description = _done(source, verb[0], source.any((f"the {noun[0]}", f"a {noun[0]}", f"{noun[0]}s of the user")))
    parameters = (_unknown_parameter(source, source.plain()),) if source.chance(0.5) else ()
    wordings = tuple(f"{said} {small_word(source)} {{{p.name}}}" for p in parameters) or (said,)
    name = styled(source, verb[0], noun[0]) if source.chance(0.3) else other_name(source)
    before, after = source.any(("", "", "", "Tool: ")), source.any(("", "."))
    return Skill(name, f"{before}{description[0].upper()}{description[1:]}{after}", parameters, wordings)


def _done(source: Source, word: str, thing: str) -> str:
    """What is done to a thing, by a verb or by its noun."""
    if like_words.is_noun(word):
        return source.any(("{w} of {t}", "the {w} of {t}", "do the {w} of {t}")).format(w=word, t=thing)
    return f"{word} {thing}"


def _unknown_skills(source: Source, most: int) -> list[Skill]:
    made = (_unknown_skill(source, most) for _ in range(source.rng.randint(2, 6)))
    return list({one.name: one for one in made}.values())


def _unknown_skill(source: Source, most: int) -> Skill:
    """A tool that means nothing, with up to `most` parameters; its name is seldom made of its description."""
    purpose = source.phrase(2, 4)
    name = styled(source, purpose) if source.chance(0.3) else other_name(source)
    return Skill(name, purpose, _unknown_parameters(source, min(1, most), most), ())


def _unknown_parameters(source: Source, fewest: int, most: int) -> tuple[Parameter, ...]:
    names = dict.fromkeys(source.plain() for _ in range(source.rng.randint(fewest, most)))
    return tuple(_unknown_parameter(source, name) for name in names)


def _unknown_parameter(source: Source, name: str) -> Parameter:
    """A parameter of any type, more often than others of several words, whose end is hard to see."""
    one = typed(source, name)
    wordy = one.schema["type"] == "string" and "enum" not in one.schema and source.chance(0.25)
    return replace(one, required=source.chance(0.8), make=some_words if wordy else one.make)


def _values(source: Source, one: Skill) -> dict[str, Any]:
    return {p.name: p.make(source) for p in one.parameters if p.required or source.chance(0.5)}


def _told(source: Source, one: Skill) -> str:
    """A description that has its words in another form than what is asked."""
    words = [word + source.any(("", "", "", "s")) for word in one.description.split()]
    if source.chance(0.5):
        words.insert(1, source.any(("a", "an", "the", "of", "to", "your", "and")))
    if source.chance(0.7):
        words[0] = words[0][0].upper() + words[0][1:]
    before = source.any(("", "", "", "", "Use this to ", "Tool: ", "Lets you "))
    after = source.any(("", ".", ".", f". Returns the {source.plain()} {source.plain()}."))
    return before + " ".join(words) + after


def _hinted(source: Source, one: Skill, have: list[Skill]) -> tuple[str, Call]:
    """Some words that only this tool's description has, then its values in order, and the call."""
    others = " ".join(other.description for other in have if other is not one).split()
    words = [word for word in one.description.split() if word not in others] or one.description.split()
    values = _values(source, one)
    said = source.rng.sample(words, source.rng.randint(1, len(words)))
    if source.chance(0.3):
        said.insert(0, source.any(("a", "the", "my", "some", "that")))
    said += [source.any((f"{small_word(source)} ", "")) + spoken(value) for value in values.values()]
    return " ".join(said), {"name": one.name, "arguments": values}


def _amid(source: Source, said: str) -> str:
    first, last = source.any(("", source.aside(3) + " ")), source.any(("", "", ".", "?", ", " + source.aside(2)))
    return first + said + last
