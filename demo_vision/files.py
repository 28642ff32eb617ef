"""Pictures in files: an agent's tool reads one, and gives it back."""

from dataclasses import replace

from demo_model.conversation import Conversation, Message
from demo_model.skills import coding_skills, reading_skill
from demo_model.source import Source
from demo_model.table import choices
from demo_model.topics_agent import EXTRA, SENTENCES, instructions, sentence, wordy
from demo_model.topics_tools import call_turn
from demo_vision.questions import Question

ENDINGS = ("png", "png", "png", "jpg", "jpeg", "webp", "gif")
WORDINGS = ("{read}. {asked}", "{read} and say: {asked}", "{asked} {read}.", "Look at {path}. {asked}")
HELD_OUT = ("Open the picture {path}: {asked}", "{asked} It is in {path}.")
SURROUNDINGS = choices("""Primary working directory: {h}|Working directory: {h}|Temporary folder: {h}
Additional directories: {h}, {h}|Is a git repository: false|Is a git repository: true|Platform: linux|Platform: darwin
Shell: bash|Shell: zsh|OS Version: Linux {n}.{n}.{n}-{w}|OS Version: Darwin {n}.{n}|Today's date is {d}.
You are powered by the model {X}.|Main branch: {w}|Recent commits: {n} {v} the {w}|Changed: {p}, {p}
Files: {p}, {p}, {p}
Put {w} and {w} into a new, empty directory each, keep {w} in another, and pass paths such as {p} as arguments.
In `{v}`, send {w} with `--{w}-{w}`, not `-{n}`.
`{w}.json` next to {p} runs when {w} has `{v} json`; start {w} with `-{v}`.
This does not apply to {w} that the user asked you to {v} or {v}.|The user's {w} lies in {h}.|Settings are in {p}.""")
_LONGEST = 500  # characters of instructions: pictures are many, and long prompts are rehearsed with text
_REMINDER = "<system-reminder>\n{0}\n</system-reminder>\n"


def _folder(source: Source) -> str:
    start = source.any(("/tmp", f"/home/{source.invented()}", f"/Users/{source.invented()}", "/var/folders", "~"))
    return "/".join([start, *(source.plain() for _ in range(source.any((0, 1, 1, 2, 3))))])


def path(source: Source) -> str:
    """The path of a picture."""
    known = source.path().rsplit(".", 1)[0]
    if source.chance(0.5):
        known = f"{_folder(source)}/{known.rpartition('/')[2]}"
    return f"{known}.{source.any(ENDINGS)}"


def surroundings(source: Source, place: str) -> str:
    """What an agent says of where it runs: mostly the folder of the file at `place`, dates, and other files."""
    lines = ["# Environment", source.any(("You run in the following environment:", "Where you are:"))]
    here = place.rpartition("/")[0]
    for _ in range(source.rng.randint(3, 12)):
        line = sentence(source, SURROUNDINGS, h=lambda: here if here and source.chance(0.6) else _folder(source))
        lines.append(f"{source.any((' - ', ' - ', '- ', ''))}{line}")
    return "\n".join(lines)


def read(source: Source, question: Question, image: str) -> Conversation:
    """A question about a picture in a file, up to what the tool gives back: the picture."""
    reader = reading_skill(source)
    where, *others = reader.parameters
    reader = replace(reader, parameters=(replace(where, make=path), *others))
    tools = [reader, *(one for one in coding_skills(source, source.any((0, 1))) if one.name != reader.name)]
    source.rng.shuffle(tools)
    tools = [wordy(source, one) for one in tools]
    talk = Conversation(question.kind, tools=[one.as_tool() for one in tools])
    if source.chance(0.7):
        talk.system(instructions(source, source.rng.randint(0, _LONGEST)))
    wanted, call = reader.request(source)
    place = call["arguments"][where.name]
    wording = source.any(HELD_OUT if source.held_out else WORDINGS)
    said = wording.replace("{read}", wanted).replace("{path}", place).replace("{asked}", question.text)
    reminder = _REMINDER.format(sentence(source, SENTENCES + EXTRA)) if source.chance(0.3) else ""
    call_turn(talk, f"{reminder}{said[0].upper()}{said[1:]}", [call])
    if source.chance(0.4):  # as Claude Code has what it says of the surroundings: behind what the user says
        more = instructions(source, source.rng.randint(50, _LONGEST)) if source.chance(0.3) else ""
        around = Message("system", more or surroundings(source, place))
        talk.messages.insert(len(talk.messages) - 1, around)
    return talk.tool(image)
