"""Chats of the Web UI, whose requests have tools in them: called where they fit, and left alone everywhere else."""

from collections.abc import Callable

from demo_model import topics_chat, topics_facts, topics_json, topics_recall, topics_store, topics_sums
from demo_model.conversation import Conversation
from demo_model.schemas import Skill
from demo_model.skills import command
from demo_model.source import Source
from demo_model.topics_tools import asked, call_turn, result_turn
from demo_model.webui_tools import DATETIME, INFO, SCRIPT, browser_tool, environment, mcp_skills, moment

NO_FILES = "I cannot read or change files or run commands here: I only have a browser, on {system}."
DENIED = "You did not allow that, so I cannot tell."
# what a user may have forbidden, as clients say it
DENIALS = {
    False: (
        "The user denied the tool.",
        "Tool call denied by the user.",
        "Execution was denied by the user",
        "The call was denied.",
        "denied by the user",
        "Denied: the user did not allow this tool.",
    ),
    True: ("The execution of the tool was denied by the user.", "The user has denied the call."),
}


def said_of_moment(source: Source, talk: Conversation) -> Conversation:
    """The clock is asked for, called, and read: the time, the date, both, the zone or the year."""
    kind = source.any(("time", "time", "time", "date", "date", "both", "zone", "year"))
    call_turn(talk, source.say(f"clock_{kind}"), [{"name": DATETIME, "arguments": {}}])
    if source.chance(0.08):
        return denied(source, talk)
    now = moment(source)
    answers = {
        "time": (f"It is {now.time}.", now.time),
        "date": (f"Today is {now.date}.", now.date),
        "both": (f"It is {now.date}, {now.time} ({now.zone}).", now.date, now.time),
        "zone": (f"Your time zone is {now.zone}.", now.zone),
        "year": (f"The year is {now.date[:4]}.", now.date[:4]),
    }
    answer, *must = answers[kind]
    return talk.tool(now.text).answer(answer, f"The clock gave the {kind}.", *must)


def said_of_system(source: Source, talk: Conversation) -> Conversation:
    """The system is asked for, or something that needs files or a shell, of which there are none."""
    needs_files = source.chance(0.5)
    said = source.say("system_files" if needs_files else "system_os")
    said = said.format(path=source.path(), command=command(source))
    call_turn(talk, said, [{"name": INFO, "arguments": {}}])
    if source.chance(0.08):
        return denied(source, talk)
    text, system = environment(source)
    answer = NO_FILES.format(system=system) if needs_files else f"Your operating system is {system}."
    return talk.tool(text).answer(answer, "The tool told the system.", system)


def denied(source: Source, talk: Conversation) -> Conversation:
    """The user does not let a tool run."""
    return talk.tool(source.any(DENIALS[source.held_out])).answer(DENIED, "It was not allowed.", "not allow")


def _code(source: Source) -> tuple[str, str]:
    """A line of JavaScript without spaces at its ends, and what the tool gives back for it."""
    a, b, word = source.rng.randint(2, 999), source.rng.randint(2, 99), source.plain()
    return source.any(
        (
            (f"return {a} * {b}", f"=> {a * b}"),
            (f"return {a} + {b}", f"=> {a + b}"),
            (f"return {a} - {b}", f"=> {a - b}"),
            (f"console.log('{word}')", word),
            (f"console.log({a} + {b})", str(a + b)),
            (f"return '{word}'.length", f"=> {len(word)}"),
            (f"return '{word}'.toUpperCase()", f"=> {word.upper()}"),
            (f"return Math.max({a}, {b})", f"=> {max(a, b)}"),
            (f"const x = {a}; return x + {b}", f"=> {a + b}"),
            (f"return [{a}, {b}].length", "=> 2"),
            (f"return {word}", f"Error: ReferenceError: {word} is not defined"),
            (f"let {word} = {a}", "(no output)"),
        )
    )


def said_of_script(source: Source, talk: Conversation) -> Conversation:
    """JavaScript is run: code that stands in what is said, or a sum that is too large to be known."""
    if source.chance(0.5):
        code, result = _code(source)
        said = source.say("script_code").format(code=code)
    else:
        kind, a, b, value = topics_sums.large(source)
        total = f"{a} {topics_sums.SIGNS[kind]} {b}"
        code, result = f"return {total}", f"=> {value}"
        said = source.say("script_sum").format(sum=total)
    call_turn(talk, said, [{"name": SCRIPT, "arguments": {"code": code}}])
    if source.chance(0.08):
        return denied(source, talk)
    return _said_of_output(talk.tool(result), result)


def _said_of_output(talk: Conversation, result: str) -> Conversation:
    if result.startswith("Error: "):
        problem = result.removeprefix("Error: ")
        return talk.answer(f"The tool failed: {problem}.", "The tool failed.", problem)
    value = result.removeprefix("=> ")
    return talk.answer(f"The result is: {value}", "I say what the tool gave back.", value)


def _remembered(source: Source) -> Conversation:
    """A value told and asked for again, or several."""
    if source.chance(0.3):
        return topics_recall.recall(source)
    key = source.any(("name", "name", "city", "hobby", "team", "dog's name", "code"))
    value = topics_recall.KEYS[key](source)
    return topics_recall.tell(source, key, value).extend(topics_recall.ask(source, key, value))


# what no tool of the Web UI is for
ELSEWHERE: dict[Callable[[Source], Conversation], float] = {
    topics_chat.greeting: 3,
    topics_chat.about_self: 3,
    topics_chat.unknown: 1,
    topics_chat.world: 3,
    topics_chat.filler: 1,
    topics_facts.fact: 2,
    topics_sums.to_twenty: 2,
    topics_sums.sums: 1,
    topics_chat.echo: 1,
    topics_store.store: 1.5,
    topics_json.keys_in_words: 1,
    _remembered: 3,
}


def talk_besides(source: Source) -> Conversation:
    """A turn or more that no tool fits, answered as without tools."""
    return source.rng.choices(list(ELSEWHERE), list(ELSEWHERE.values()))[0](source)


def offered(source: Source) -> tuple[list[str], list[Skill]]:
    """The tools of a chat: the browser's two, JavaScript, those of an MCP server beside them or alone."""
    served = mcp_skills(source, source.rng.randint(1, 4)) if source.chance(0.4) else []
    if served and source.chance(0.3):
        return [], served
    names = [DATETIME, INFO]
    if source.chance(0.3):
        names.insert(1, SCRIPT)
    if source.chance(0.12):
        names.remove(source.any((DATETIME, INFO)))
    return names, served


def chat(source: Source, talking: float = 0.55) -> Conversation:
    """One to seven exchanges of a chat in the Web UI; in a share of them, no tool fits what is said."""
    names, served = offered(source)
    tools = [browser_tool(source, name) for name in names] + [one.as_tool() for one in served]
    if source.chance(0.4):
        source.rng.shuffle(tools)
    talk = Conversation("webui", tools=tools)
    for _ in range(source.any((1, 1, 2, 3, 4, 5, 7))):
        if source.chance(talking):
            talk.extend(_besides(source, names))
        else:
            _call(source, talk, names, served)
    return talk.system(topics_chat.helpful(source) if source.chance(0.25) else "")


def _besides(source: Source, names: list[str]) -> Conversation:
    if SCRIPT not in names and source.chance(0.06):
        return topics_sums.too_large(source)
    return talk_besides(source)


def _call(source: Source, talk: Conversation, names: list[str], served: list[Skill]) -> Conversation:
    if served and (not names or source.chance(0.5)):
        said, call = asked(source, source.any(served))
        return result_turn(source, call_turn(talk, said, [call]))
    makers = {DATETIME: said_of_moment, INFO: said_of_system, SCRIPT: said_of_script}
    return makers[source.any(names)](source, talk)
