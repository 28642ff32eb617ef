"""The held-out questions of the evaluation, made from words, phrasings and tools that training never uses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from demo_model import (
    topics_agent,
    topics_chat,
    topics_drills,
    topics_facts,
    topics_json,
    topics_memory,
    topics_recall,
    topics_store,
    topics_sums,
    topics_tools,
    topics_webui,
)
from demo_model.conversation import Conversation, Message, Tool
from demo_model.skills import coding_skills
from demo_model.source import Source
from demo_model.webui_tools import BROWSER_TOOLS

SEED = "evaluation"
Maker = Callable[[Source], Conversation]


@dataclass(frozen=True)
class Item:
    """One answer to give: the messages before it, the tools, the answer that is right, and the schema it is held to."""

    category: str
    messages: list[Message]
    tools: list[Tool]
    wanted: Message
    thinking: bool = False
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Category:
    """A row of the table: how many items, which answers of a conversation count, and the figure to reach."""

    name: str
    maker: Maker
    count: int
    goal: float | None = None
    counts: Callable[[Message], bool] = lambda message: True


def asks(message: Message) -> bool:
    """Whether the answer gives something back that the user told before."""
    return message.content.startswith(("Your ", "You live", "The "))


def calls(message: Message) -> bool:
    """Whether the answer calls tools."""
    return bool(message.calls)


def talks(message: Message) -> bool:
    """Whether the answer calls no tool."""
    return not message.calls


def calls_browser(message: Message) -> bool:
    """Whether the answer calls a tool of the Web UI."""
    return any(call["name"] in BROWSER_TOOLS for call in message.calls)


def _greetings(source: Source) -> Conversation:
    return (topics_chat.greeting if source.chance(0.5) else topics_chat.about_self)(source)


def _recall(source: Source) -> Conversation:
    return source.any((topics_recall.recall, topics_recall.recall, topics_recall.several, topics_recall.of_things))(
        source
    )


def _agent(source: Source) -> Conversation:
    return topics_agent.agent(source, source.rng.randint(3800, 6000), source.rng.randint(4, 6), 2)


def _coding(source: Source) -> Conversation:
    tools = coding_skills(source, source.rng.randint(3, 5))
    return topics_agent.behind(source, source.rng.randint(3800, 6000), tools, 2)


CATEGORIES = [
    Category("greetings and self-description", _greetings, 120, 0.95),
    Category("slot recall", _recall, 150, 0.95, asks),
    Category("tool calls, one", topics_tools.single, 120, 0.90, calls),
    Category("tool calls, two at once", topics_tools.double, 60, 0.75, calls),
    Category("tool calls behind a long agent prompt", _agent, 60, 0.80, calls),
    Category("calls of file tools it knows, behind a long agent prompt", _coding, 60, None, calls),
    Category("memory-agent turns", topics_memory.memory, 150, 0.95),
    Category("answers behind a long agent prompt", _agent, 40, None, talks),
    Category("tool results said back", topics_tools.single, 60, 0.98, talks),
    Category("talk with tools at hand", topics_tools.plain, 60),
    Category("no tool fits", topics_tools.none_fits, 60, 0.95),
    Category("facts about the server", topics_facts.fact, 100),
    Category("given another name", topics_chat.persona, 50),
    Category("greeting in a language", topics_chat.tongue, 50),
    Category("small sums", topics_sums.sums, 100),
    Category("does not know the world", topics_chat.unknown, 50),
    Category("says what it was not told", topics_recall.unanswerable, 50),
    Category("repeats words", topics_chat.echo, 50),
    Category("calls of the Web UI's tools", partial(topics_webui.chat, talking=0), 100, 0.95, calls_browser),
    Category("what they gave said back", partial(topics_webui.chat, talking=0), 60, 0.98, talks),
    Category("talk beside the Web UI's tools", partial(topics_webui.chat, talking=1), 120, 0.95),
    Category("JSON of a schema", topics_json.structured, 100, 0.90),
    Category("JSON of a schema, made up", topics_json.made_up, 30, 0.995),
    Category("JSON with keys asked for in words", topics_json.keys_in_words, 50),
    Category("sums to 20", topics_sums.to_twenty, 100, 0.95),
    Category("sums that are too large", topics_sums.too_large, 20),
    Category("a sentence or a joke of its store", topics_store.store, 50),
    Category("questions about the world", topics_chat.world, 50, 0.95),
    Category("tool calls, three at once", topics_tools.triple, 60, None, calls),
    Category("calls with values of several words", topics_tools.wordy, 60, None, calls),
    Category("calls asked for in like words", topics_drills.like, 60, None, calls),
]
THOUGHT = (
    "greetings and self-description",
    "slot recall",
    "tool calls, one",
    "tool calls behind a long agent prompt",
    "facts about the server",
    "small sums",
)


def of(category: Category) -> Iterator[Item]:
    """The items of a category, the same each time."""
    source, made = Source(f"{SEED} {category.name}", held_out=True), 0
    while made < category.count:
        talk = category.maker(source)
        answers = [i for i, m in enumerate(talk.messages) if m.role == "assistant" and category.counts(m)]
        if answers:
            place, made = source.any(answers), made + 1
            yield Item(category.name, talk.messages[:place], talk.tools, talk.messages[place], schema=talk.schema)


def all_items(share: float = 1.0) -> list[Item]:
    """All items, or the first share of each category; some of them once more with thinking asked for."""
    items = [item for category in CATEGORIES for item in list(of(category))[: max(1, int(category.count * share))]]
    thought = [item for name in THOUGHT for item in [i for i in items if i.category == name][: max(1, int(20 * share))]]
    return items + [replace(item, thinking=True) for item in thought]
