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
    """Two to five tools of different verbs and things."""
    verbs, nouns = (like_words.pairs(groups, source.held_out) for groups in (like_words.VERBS, like_words.NOUNS))
    have: dict[tuple[int, int], Skill] = {}
    for _ in range(source.rng.randint(2, 5)):
        verb, noun = source.any(verbs), source.any(nouns)
        if all(verb[0] != other_verb and noun[0] != other_noun for other_verb, other_noun in have):
            have[verb[0], noun[0]] = _like_skill(source, verb[1:], noun[1:])
    return list(have.values())


def _like_skill(source: Source, verb: tuple[str, str], noun: tuple[str, str]) -> Skill:
    kind = source.rng.random()  # the verb is another word below 0.7, the thing above 0.4
    said_verb, said_noun = verb[kind < 0.7], noun[kind > 0.4]
    name = styled(source, verb[0], noun[0]) if source.chance(0.3) else other_name(source)
    purpose = source.any(
        ("{v} the {n}", "{v} a {n}.", "{v}s the {n}s", "Use this to {v} a {n}.", "{v} {n}s of the user")
    )
    parameters = (_unknown_parameter(source, source.plain()),) if source.chance(0.5) else ()
    said = f"{said_verb} {source.any(('the', 'a', 'my', 'this'))} {said_noun}"
    wordings = tuple(f"{said} {small_word(source)} {{{p.name}}}" for p in parameters) or (said,)
    description = purpose.format(v=verb[0], n=noun[0])
    return Skill(name, description[0].upper() + description[1:], parameters, wordings)


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
