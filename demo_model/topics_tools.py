"""Conversations with tools: the right one called, none called, two called, the result said back."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from demo_model.conversation import Call, Conversation
from demo_model.schemas import Skill, invented_skill
from demo_model.skills import coding_skills, everyday_skill
from demo_model.source import Source
from demo_model.topics_chat import about_self, greeting, helpful
from demo_model.topics_facts import fact
from demo_model.topics_sums import sums

NO_TOOL = "None of my tools can do that."


def skill(source: Source) -> Skill:
    """A tool, everyday or invented."""
    return (everyday_skill if source.chance(0.5) else invented_skill)(source)


def skills(source: Source, count: int, coding: float = 0.2) -> list[Skill]:
    """That many tools of different names and purposes; in a share of the training, those of coding agents."""
    if not source.held_out and source.chance(coding):
        return coding_skills(source, count)
    found: dict[str, Skill] = {}
    while len(found) < count:
        one = skill(source)
        if all(one.description != other.description for other in found.values()):
            found[one.name] = one
    return list(found.values())


def asked(source: Source, one: Skill) -> tuple[str, Call]:
    """A request in full, with or without politeness, and its call."""
    said, call = one.request(source)
    if said.split()[0] in ("what", "how", "is", "where", "which", "who", "what's", "when", "do", "are"):
        said = said + "?" if source.chance(0.6) else said
    elif not said.startswith("I "):
        said = _politely(source, said) if "{" not in said and source.chance(0.8) else said
    return (said[0].upper() + said[1:] if source.chance(0.6) else said), call


def _politely(source: Source, said: str) -> str:
    """The request with what people put around it, sometimes words that mean nothing, so that none are relied on."""
    if source.held_out or source.chance(0.7):
        return source.say("please").format(do=said)
    before = source.aside(5) + source.any((" ", " ", ", ", ": "))
    return f"{before}{said}{source.any(('', '', '.', ', ' + source.aside(2)))}"


def call_turn(talk: Conversation, said: str, calls: list[Call]) -> Conversation:
    """The user asks and the model calls."""
    names = " and ".join(call["name"] for call in calls)
    count = {1: "it", 2: "both"}.get(len(calls), "all")
    thought = f"The tool {names} fits." if len(calls) == 1 else f"The tools {names} fit."
    return talk.user(said).call(calls, f"{thought} I call {count}.")


def _fields(source: Source) -> dict[str, Any]:
    makes: list[Callable[[], object]] = [
        source.invented,
        source.plain,
        source.number,
        source.name,
        source.place,
        source.code,
        lambda: source.rng.randint(1, 99) / 10,
    ]
    keys = (
        "temperature",
        "status",
        "condition",
        "result",
        "price",
        "time",
        "count",
        "id",
        "date",
        "name",
        source.word("PARAMETERS"),
        source.noun(),
    )
    return {
        key: source.any(makes)() for key in source.rng.sample(list(dict.fromkeys(keys)), source.any((1, 1, 2, 2, 3)))
    }


def outcome(source: Source) -> tuple[str, str, tuple[str, ...]]:
    """What a tool gives back, what the model says of it, and the words that matter."""
    kind = source.rng.random()
    if kind < 0.5:
        fields = _fields(source)
        said = " and ".join(f"the {key.replace('_', ' ')} is {value}" for key, value in fields.items())
        text = json.dumps(fields, ensure_ascii=False, indent=source.any((None, None, None, 2)))
        return text, said[0].upper() + said[1:] + ".", tuple(str(v) for v in fields.values())
    if kind < 0.6:
        problem = source.any(
            (
                "not found",
                "permission denied",
                f"no {source.noun()} called {source.plain()}",
                "timed out",
                source.phrase(2, 4),
            )
        )
        return (
            source.any((json.dumps({"error": problem}), f"Error: {problem}")),
            f"The tool failed: {problem}.",
            (problem,),
        )
    if kind < 0.68:
        return (
            source.any(("ok", "done", "OK", "true", "success", "", '{"ok": true}', '{"success": true}')),
            "Done.",
            ("Done",),
        )
    makes: list[Callable[[], str]] = [lambda: source.phrase(2, 8), lambda: str(source.number()), lambda: _lines(source)]
    text = source.any([*makes, source.place, source.file])()
    return text, f"The result is:\n{text}" if "\n" in text else f"The result is: {text}", (text,)


def _lines(source: Source) -> str:
    makes: list[Callable[[], str]] = [source.file, lambda: source.phrase(1, 4)]
    return "\n".join(source.any(makes)() for _ in range(source.rng.randint(2, 5)))


def result_turn(source: Source, talk: Conversation, count: int = 1) -> Conversation:
    """Tools answer and the model says it back."""
    results = [outcome(source) for _ in range(count)]
    for text, _, _ in results:
        talk.tool(text)
    said = " ".join(answer for _, answer, _ in results)
    return talk.answer(said, "I say what the tool gave back.", *(word for _, _, words in results for word in words))


def start(source: Source, kind: str, count: int) -> tuple[Conversation, list[Skill]]:
    """A conversation with that many tools."""
    have = skills(source, count)
    talk = Conversation(kind, tools=[one.as_tool() for one in have])
    system = helpful(source) if source.chance(0.4) else ""
    return talk.system(system), have


def single(source: Source) -> Conversation:
    """One to four requests in a row, each with its result."""
    talk, have = start(source, "tool", source.any((1, 2, 2, 3, 3, 4, 5)))
    for _ in range(source.any((1, 2, 3, 4))):
        call_turn(talk, *_one(source, source.any(have)))
        result_turn(source, talk)
        if source.chance(0.15):
            talk.extend(greeting(source))
    return talk


def _one(source: Source, chosen: Skill) -> tuple[str, list[Call]]:
    said, call = asked(source, chosen)
    return said, [call]


def double(source: Source) -> Conversation:
    """Two things asked for at once."""
    talk, have = start(source, "tool2", source.any((2, 2, 3, 4)))
    chosen = [source.any(have)] * 2 if source.chance(0.3) else source.rng.sample(have, 2)
    first, second = chosen[0].request(source), chosen[1].request(source)
    said = joined(source, first[0], second[0])
    call_turn(talk, said[0].upper() + said[1:] if source.chance(0.6) else said, [first[1], second[1]])
    return result_turn(source, talk, 2)


def triple(source: Source) -> Conversation:
    """Three things asked for at once."""
    talk, have = start(source, "tool3", source.any((3, 3, 4)))
    chosen = [source.any(have) for _ in range(3)] if source.chance(0.3) else source.rng.sample(have, 3)
    wanted = [one.request(source) for one in chosen]
    said = source.say("three")
    for slot, (one, _) in zip(("{a}", "{b}", "{c}"), wanted, strict=True):
        said = said.replace(slot, one, 1)
    call_turn(talk, said[0].upper() + said[1:] if source.chance(0.6) else said, [call for _, call in wanted])
    return result_turn(source, talk, 3)


def wordy(source: Source) -> Conversation:
    """Values of several words, which end where something else begins; some stand in quotation marks."""
    have = [_with_long_values(one) for one in skills(source, source.any((1, 2, 2, 3)))]
    talk = Conversation("wordy", tools=[one.as_tool() for one in have])
    for _ in range(source.rng.randint(1, 4)):
        said, call = asked(source, source.any(have))
        for value in call["arguments"].values():
            if isinstance(value, str) and " " in value and source.chance(0.3):
                said = said.replace(value, f'"{value}"', 1)
        call_turn(talk, said, [call])
    return talk


def _with_long_values(one: Skill) -> Skill:
    """The same tool, whose free texts have two to six words."""
    longer = [
        replace(p, make=lambda s: s.phrase(2, 6)) if p.schema.get("type") == "string" and "enum" not in p.schema else p
        for p in one.parameters
    ]
    return replace(one, parameters=tuple(longer))


def joined(source: Source, first: str, second: str) -> str:
    """Two requests in one."""
    return _both(source).replace("{a}", first).replace("{b}", second)


def _both(source: Source) -> str:
    if source.held_out or source.chance(0.65):
        return source.say("both")
    return source.any(("", "", source.aside(3) + ": ")) + "{a}" + source.any((", ", ". ")) + source.aside(3) + " {b}"


def plain(source: Source) -> Conversation:
    """Tools are there but the user only talks."""
    talk, _ = start(source, "plain", source.any((1, 2, 2, 3)))
    for _ in range(source.any((1, 2))):
        talk.extend(source.any((greeting, greeting, about_self, fact, sums))(source))
    return talk


def none_fits(source: Source) -> Conversation:
    """The user asks for something that no tool does."""
    talk, have = start(source, "none", source.any((1, 2, 2, 3)))
    other = skill(source)
    while any(other.description == one.description or other.name == one.name for one in have):
        other = skill(source)
    return talk.user(asked(source, other)[0]).answer(NO_TOOL, "No tool fits.", "None of my tools")
