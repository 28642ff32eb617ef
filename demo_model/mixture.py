"""Which conversations the model is trained on, and when: short and copy-heavy first, long ones last."""

from collections.abc import Callable

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
from demo_model.conversation import Conversation
from demo_model.source import Source

Maker = Callable[[Source], Conversation]
Mixture = dict[Maker, float]


def with_system(maker: Maker) -> Maker:
    """The same conversations, some of them under a plain system prompt."""

    def made(source: Source) -> Conversation:
        return maker(source).system(topics_chat.helpful(source) if source.chance(0.35) else "")

    return made


CHAT: Mixture = {
    with_system(topics_chat.greeting): 2.4,
    with_system(topics_chat.about_self): 2.4,
    with_system(topics_chat.unknown): 1.5,
    with_system(topics_chat.filler): 0.7,
    topics_chat.persona: 2.0,
    topics_chat.tongue: 1.5,
    with_system(topics_facts.fact): 3.6,
    with_system(topics_chat.world): 1.8,
    with_system(topics_store.store): 2.4,
    with_system(topics_sums.sums): 4.0,
    with_system(topics_sums.to_twenty): 4.0,
    with_system(topics_sums.too_large): 0.5,
    topics_sums.counting: 0.5,
    with_system(topics_chat.echo): 2.5,
}
RECALL: Mixture = {
    with_system(topics_recall.recall): 9.0,
    with_system(topics_recall.several): 3.0,
    with_system(topics_recall.of_things): 4.0,
    topics_recall.unanswerable: 1.5,
}
DRILL: Mixture = {topics_recall.drill: 1.0}
LOOKUP: Mixture = {topics_drills.lookup: 3.0, topics_drills.binding: 1.0}
CHOICE: Mixture = {
    topics_drills.lookup: 1.0,
    topics_drills.choice: 3.0,
    topics_drills.like: 2.5,
    topics_drills.binding: 2.0,
}
TOOLS: Mixture = {
    topics_tools.single: 13.0,
    topics_tools.double: 7.0,
    topics_tools.triple: 3.0,
    topics_tools.wordy: 4.0,
    topics_tools.plain: 3.0,
    topics_tools.none_fits: 3.0,
}
WEBUI: Mixture = {topics_webui.chat: 1.0}
JSON: Mixture = {topics_json.structured: 6.0, topics_json.made_up: 1.0, topics_json.keys_in_words: 4.0}
SUMS: Mixture = {topics_sums.drill: 1.0}
MEMORY: Mixture = {topics_memory.memory: 10.0}
SHORT_AGENT: Mixture = {topics_agent.short_agent: 1.0}
LONG: Mixture = {topics_agent.long_agent: 3.0, topics_memory.long_memory: 1.0}


def scaled(parts: dict[str, float]) -> Mixture:
    """The named groups of this module, each with its share of the conversations."""
    mixture: Mixture = {}
    for name, share in parts.items():
        group: Mixture = globals()[name]
        mixture |= {maker: share * weight / sum(group.values()) for maker, weight in group.items()}
    return mixture


EARLY = scaled(
    {"DRILL": 16, "RECALL": 18, "CHAT": 12, "TOOLS": 36, "MEMORY": 4, "JSON": 7, "SUMS": 4, "WEBUI": 3},
)
FOCUS = scaled({"RECALL": 5, "CHAT": 5, "LOOKUP": 62, "TOOLS": 16, "MEMORY": 3, "JSON": 3, "SUMS": 4, "WEBUI": 2})
MIDDLE = scaled(
    {"DRILL": 2, "RECALL": 6, "CHAT": 16, "CHOICE": 17, "TOOLS": 28, "MEMORY": 7, "SHORT_AGENT": 6}
    | {"JSON": 9, "SUMS": 5, "WEBUI": 8},
)
LATE = scaled(
    {"DRILL": 1, "RECALL": 5, "CHAT": 16, "CHOICE": 13, "TOOLS": 25, "MEMORY": 8, "SHORT_AGENT": 11, "LONG": 4}
    | {"JSON": 9, "SUMS": 4, "WEBUI": 8},
)
STAGES = ((EARLY, 0.07), (FOCUS, 0.2), (MIDDLE, 0.58), (LATE, 2.0))  # each until that share of the training
THINKING_SHARE = 0.14
# of these kinds instead; most agents have their models think
THINKING_SHARES = {
    **dict.fromkeys(("memory", "drill", "lookup", "binding", "sum drill", "json", "json made up"), 0.0),
    **dict.fromkeys(("choice", "like words", "wordy"), 0.08),
    "agent": 0.35,
}


def stage(progress: float) -> Mixture:
    """The mixture at that share of the training."""
    return next(mixture for mixture, end in STAGES if progress < end)


def repeated_share(progress: float) -> float:
    """The share of bare repetitions, which keep the copying general."""
    return 0.3 if progress < 0.04 else 0.1 if progress < 0.14 else 0.06


def draw(source: Source, mixture: Mixture) -> Conversation:
    """One conversation of the mixture; some end with an answer that thinks aloud."""
    talk = source.rng.choices(list(mixture), list(mixture.values()))[0](source)
    if source.chance(THINKING_SHARES.get(talk.kind, THINKING_SHARE)):
        _cut(source, talk)
        talk.thinking = True
    return talk


def _cut(source: Source, talk: Conversation) -> None:
    """End the conversation at any of its answers, the one that is thought about."""
    ends = [i for i, message in enumerate(talk.messages) if message.role == "assistant"]
    del talk.messages[source.any(ends) + 1 :]
