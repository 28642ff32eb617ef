"""The memory agent: notes kept as files, worked on with Python, over the results that come back."""

from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.table import choices
from demo_model.topics_recall import KEYS

FUNCTIONS = {
    "create_file": ('create_file(file_path, content="")', "creates a file"),
    "create_dir": ("create_dir(dir_path)", "creates a folder"),
    "update_file": ("update_file(file_path, old_content, new_content)", "replaces text in a file"),
    "read_file": ("read_file(file_path)", "reads a file"),
    "delete_file": ("delete_file(file_path)", "deletes a file"),
    "list_files": ("list_files()", "lists all files"),
    "go_to_link": ("go_to_link(link)", "opens a linked note"),
    "check_if_file_exists": ("check_if_file_exists(path)", "says whether a file exists"),
    "check_if_dir_exists": ("check_if_dir_exists(path)", "says whether a folder exists"),
    "get_size": ("get_size(path)", "gives the size in bytes"),
}

OPENINGS = choices("""You are an agent with a memory of files.|You are a memory agent.
You are an assistant that keeps notes about the user.|You have a memory made of Markdown files.
# Memory agent|You are an LLM agent with a self-managed, Obsidian-like memory.
You remember what the user tells you in files.|You are {name}, an agent with a file memory.""")
RULES = [
    *choices("""Your answers have the parts <think>, <python> and <reply>.
Answer with <think>…</think>, <python>…</python> and <reply>…</reply>.
Think in <think>, act in <python>, speak in <reply>.
Use <think> to reason, <python> to run code on the memory and <reply> to answer the user.
Format: <think>your reasoning</think> <python>your code</python> <reply>your answer</reply>
Write your reasoning in <think>, Python code in <python>, and the answer for the user in <reply>."""),
    "Answer like this:\n<think>\n[reasoning]\n</think>\n<python>\n[code]\n</python>\n<reply>\n[answer]\n</reply>",
]
MORE = choices("""Results come back in <result>…</result>.|Leave <reply> empty while you still run code.
Leave <python> empty when you reply.|Assign what you need to variables.
Facts about the user are in user.md.|People have their own notes in the folder people.
Link notes with [[path]].|Keep the memory up to date.|Do not invent facts.
Only use the functions below.|One fact per line.|The memory is private.|Never reply and run code at once.
Wait for the result before you reply.|Be brief.""")

RELATIONS = choices("""sister|brother|mother|father|friend|boss|neighbour|wife|husband|son|daughter|teacher|doctor
colleague|aunt|uncle|cousin""")
FACTS = [
    k for k in KEYS if k not in ("boss", "sister's name", "brother's name", "favourite color", "email", "phone number")
]


def prompt(source: Source) -> str:
    """A system prompt that describes the protocol, short or long."""
    parts = [source.any(OPENINGS).format(name=source.name()), source.any(RULES)]
    parts += source.rng.sample(MORE, source.any((0, 1, 2, 3, 5)))
    if source.chance(0.6):
        names = source.rng.sample(list(FUNCTIONS), source.any((4, 6, 10, 10)))
        shape = source.any(("- {s}: {d}", "- `{s}` {d}", "* {s}", "def {s}: ...", "{s} # {d}"))
        parts.append("Functions:\n" + "\n".join(shape.format(s=FUNCTIONS[n][0], d=FUNCTIONS[n][1]) for n in names))
    return source.any(("\n", "\n\n", " ")).join(parts)


def turn(thought: str, code: str = "", reply: str = "") -> str:
    """One answer of the memory agent in its one style."""
    python = f"<python>\n{code}\n</python>" if code else "<python></python>"
    return f"<think>\n{thought}\n</think>\n{python}\n<reply>{reply}</reply>"


def quoted(text: str) -> str:
    """A Python string literal with double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class Notebook:
    """A memory conversation being written: what the user says, the code, the results, the replies."""

    def __init__(self, kind: str = "memory") -> None:
        self.talk = Conversation(kind)

    def user(self, said: str) -> "Notebook":
        """What the user says."""
        self.talk.user(said)
        return self

    def code(self, thought: str, code: str) -> "Notebook":
        """An answer that runs code; the code is what must be right."""
        self.talk.answer(turn(thought, code), thought, code)
        return self

    def result(self, source: Source, **variables: object) -> "Notebook":
        """What the code left in its variables."""
        self.talk.user(f"<result>\n{variables!r}\n</result>")
        return self

    def reply(self, thought: str, reply: str, *must: str) -> "Notebook":
        """An answer to the user; `must` are the words that it must hold."""
        self.talk.answer(turn(thought, reply=reply), thought, *(must or (reply,)))
        return self


def _error(source: Source, notebook: Notebook) -> Notebook:
    problem = source.any(
        (
            "NameError: name 'note' is not defined",
            "Error: file too large",
            "TimeoutError",
            f"FileNotFoundError: {source.path()}",
        )
    )
    notebook.talk.user(f"<result>\n({{}}, {{{problem}}})\n</result>")
    return notebook.reply("The code failed.", f"That did not work: {problem}", problem)


def _slot(source: Source) -> tuple[str, str]:
    key = source.any(FACTS)
    return key, KEYS[key](source)


def _line(key: str, value: str) -> str:
    return f"- {key}: {value}\n"


def adding(path: str, line: str, title: str) -> str:
    """Code that adds a line to a note, which it starts where there is none."""
    return (
        f'path = "{path}"\nline = {quoted(line)}\n'
        "if check_if_file_exists(path):\n    done = create_file(path, read_file(path) + line)\n"
        f"else:\n    done = create_file(path, {quoted('# ' + title + chr(10))} + line)"
    )


def _other_lines(source: Source, without: str) -> str:
    slots = dict(_slot(source) for _ in range(source.any((0, 1, 1, 2, 3))))
    return "".join(_line(k, v) for k, v in slots.items() if k != without)


def save(source: Source, notebook: Notebook) -> None:
    """The user tells a fact, which is added to `user.md`."""
    key, value = _slot(source)
    said = source.say(
        "tell_name" if key == "name" else "live" if key == "city" and source.chance(0.6) else "tell"
    ).format(key=key, value=value)
    notebook.user(said).code(
        f"The user tells me a fact: {key} is {value}. I add it to user.md.",
        adding("user.md", _line(key, value), "User"),
    )
    if source.chance(0.08):
        _error(source, notebook)
    else:
        notebook.result(source, path="user.md", line=_line(key, value), done=True)
        notebook.reply("The fact is saved.", f"I will remember that your {key} is {value}.", value)


def recall(source: Source, notebook: Notebook) -> None:
    """The user asks for a fact, which is looked up in `user.md`."""
    key, value = _slot(source)
    question = source.say(
        "ask_name" if key == "name" else "ask_live" if key == "city" and source.chance(0.6) else "ask"
    ).format(key=key)
    notebook.user(question).code(f"The user asks for the {key}. I read user.md.", 'note = read_file("user.md")')
    kind = source.rng.random()
    if kind < 0.1:
        notebook.result(source, note="Error: file user.md does not exist").reply(
            "There is no such note.", "I do not know that yet."
        )
    elif kind < 0.2:
        notebook.result(source, note="# User\n" + _other_lines(source, key)).reply(
            f"The note does not say the {key}.", "I do not know that yet."
        )
    else:
        lines = _other_lines(source, key).splitlines(True)
        lines.insert(source.rng.randint(0, len(lines)), _line(key, value))
        notebook.result(source, note="# User\n" + "".join(lines)).reply(
            f"The note says the {key} is {value}.", f"Your {key} is {value}.", value
        )


def update(source: Source, notebook: Notebook) -> None:
    """The user corrects a fact; the old line is read and replaced."""
    key, value = _slot(source)
    old = KEYS[key](source)
    notebook.user(source.say("change").format(key=key, value=value)).code(
        f"The {key} changes to {value}. I read user.md.", 'note = read_file("user.md")'
    )
    lines = _other_lines(source, key).splitlines(True)
    lines.insert(source.rng.randint(0, len(lines)), _line(key, old))
    notebook.result(source, note="# User\n" + "".join(lines))
    notebook.code(
        f"The old {key} is {old}. I replace it with {value}.",
        f'done = update_file("user.md", {quoted(f"- {key}: {old}")}, {quoted(f"- {key}: {value}")})',
    )
    notebook.result(source, done=True).reply(
        "The note is updated.", f"I will remember that your {key} is {value}.", value
    )


def person(source: Source, notebook: Notebook) -> None:
    """The user tells of a person, who gets a note that `user.md` links to."""
    name, relation = source.fresh(lambda: source.name().split()[0]), source.any(RELATIONS)
    path = f"people/{name}"
    notebook.user(source.say("mem_person").format(relation=relation, name=name))
    notebook.code(
        f"The {relation} of the user is {name}. I link the note [[{path}]] in user.md.",
        adding("user.md", f"- {relation}: [[{path}]]\n", "User"),
    )
    notebook.result(source, path="user.md", line=f"- {relation}: [[{path}]]\n", done=True)
    notebook.reply("The link is saved.", f"I will remember that your {relation} is {name}.", name)


def person_fact(source: Source, notebook: Notebook) -> None:
    """The user tells where a person lives, which is kept in the person's note."""
    name, place = source.fresh(lambda: source.name().split()[0]), source.place()
    notebook.user(source.say("mem_person_fact").format(name=name, place=place))
    notebook.code(
        f"{name} lives in {place}. I add it to people/{name}.md.",
        adding(f"people/{name}.md", _line("city", place), name),
    )
    notebook.result(source, path=f"people/{name}.md", line=_line("city", place), done=True)
    notebook.reply("The fact is saved.", f"I will remember that {name} lives in {place}.", name, place)


def about_person(source: Source, notebook: Notebook) -> None:
    """The user asks about a person by name."""
    name = source.fresh(lambda: source.name().split()[0])
    notebook.user(source.say("mem_recall").format(thing=name)).code(
        f"I read the note about {name}.", f'note = read_file("people/{name}.md")'
    )
    if source.chance(0.2):
        notebook.result(source, note=f"Error: file people/{name}.md does not exist").reply(
            "There is no such note.", "I do not know that yet."
        )
    else:
        place = source.place()
        notebook.result(source, note=f"# {name}\n- city: {place}\n").reply(
            f"The note says the city is {place}.", f"{name}: city is {place}.", place
        )


def where(source: Source, notebook: Notebook) -> None:
    """The user asks where a relation lives: one note leads to another."""
    name, relation, place = source.fresh(lambda: source.name().split()[0]), source.any(RELATIONS), source.place()
    notebook.user(source.say("mem_where").format(relation=relation)).code(
        f"The user asks about the {relation}. I read user.md.", 'note = read_file("user.md")'
    )
    lines = _other_lines(source, relation) + f"- {relation}: [[people/{name}]]\n"
    notebook.result(source, note="# User\n" + lines)
    notebook.code(f"The {relation} is [[people/{name}]]. I follow the link.", f'note = go_to_link("[[people/{name}]]")')
    notebook.result(source, note=f"# {name}\n- city: {place}\n").reply(
        f"The note says the city is {place}.", f"Your {relation} {name} lives in {place}.", name, place
    )


def _note(source: Source) -> str:
    folder = source.any(("", "", "notes/", "projects/", source.plain() + "/"))
    return f"{folder}{source.plain()}.md"


def files(source: Source, notebook: Notebook) -> None:
    """The user names a note: write it, read it, delete it, ask for it, follow it."""
    path, text = _note(source), source.phrase(2, 6)
    kind = source.any(("mem_write", "mem_read", "mem_exists", "mem_delete", "mem_link"))
    notebook.user(source.say(kind).format(path=path, text=text, link=path.removesuffix(".md")))
    {"mem_write": _write, "mem_read": _read, "mem_exists": _exists, "mem_delete": _delete, "mem_link": _link}[kind](
        source, notebook, path, text
    )


def _write(source: Source, notebook: Notebook, path: str, text: str) -> None:
    notebook.code(f"I write the note {path}.", f'done = create_file("{path}", {quoted(text)})')
    notebook.result(source, done=True).reply("The note is written.", f"I wrote {path}.", path)


def _read(source: Source, notebook: Notebook, path: str, text: str) -> None:
    notebook.code(f"I read the note {path}.", f'note = read_file("{path}")')
    _shown(source, notebook, path, text)


def _link(source: Source, notebook: Notebook, path: str, text: str) -> None:
    link = path.removesuffix(".md")
    notebook.code(f"I follow the link [[{link}]].", f'note = go_to_link("[[{link}]]")')
    _shown(source, notebook, path, text)


def _shown(source: Source, notebook: Notebook, path: str, text: str) -> None:
    if source.chance(0.2):
        notebook.result(source, note=f"Error: file {path} does not exist").reply(
            "There is no such note.", "There is no such note."
        )
    else:
        notebook.result(source, note=text).reply("I have the text.", f"The note says: {text}", text)


def _exists(source: Source, notebook: Notebook, path: str, text: str) -> None:
    there = source.chance(0.5)
    notebook.code(f"I check whether {path} exists.", f'exists = check_if_file_exists("{path}")').result(
        source, exists=there
    )
    notebook.reply(
        "I have the answer.", f"{'Yes' if there else 'No'}, {path} {'exists' if there else 'does not exist'}."
    )


def _delete(source: Source, notebook: Notebook, path: str, text: str) -> None:
    there = source.chance(0.8)
    notebook.code(f"I delete {path}.", f'done = delete_file("{path}")').result(source, done=there)
    notebook.reply("I have the answer.", f"I deleted {path}." if there else f"I could not delete {path}.")


def listing(source: Source, notebook: Notebook) -> None:
    """The user asks which notes there are."""
    names = ["user.md", *(f"{source.plain()}.md" for _ in range(source.rng.randint(0, 3)))]
    tree = "./\n" + "\n".join(("└── " if i == len(names) - 1 else "├── ") + n for i, n in enumerate(names))
    notebook.user(source.say("mem_list")).code("I list the files.", "files = list_files()")
    notebook.result(source, files=tree).reply("I have the list.", "My notes are: " + ", ".join(names) + ".", *names)


def smalltalk(source: Source, notebook: Notebook) -> None:
    """A greeting needs no memory."""
    kind = source.any(("greet", "greet", "greet", "thanks", "bye"))
    reply = {"greet": "Hello! How can I help you?", "thanks": "You are welcome!", "bye": "Goodbye!"}[kind]
    notebook.user(source.say(kind)).reply("I need no memory for this.", reply)


TURNS = (
    save,
    save,
    save,
    recall,
    recall,
    recall,
    update,
    update,
    person,
    person_fact,
    about_person,
    where,
    files,
    files,
    files,
    listing,
    smalltalk,
)


def memory(source: Source) -> Conversation:
    """One to three turns of the memory agent."""
    notebook = Notebook()
    for _ in range(source.any((1, 1, 2, 2, 3))):
        source.any(TURNS)(source, notebook)
    return notebook.talk.system(prompt(source))


def long_memory(source: Source) -> Conversation:
    """A memory conversation of many turns under a longer prompt."""
    notebook = Notebook()
    for _ in range(source.rng.randint(3, 6)):
        source.any(TURNS)(source, notebook)
    return notebook.talk.system(
        prompt(source) + "\n" + "\n".join(source.any(MORE) for _ in range(source.rng.randint(0, 20)))
    )
