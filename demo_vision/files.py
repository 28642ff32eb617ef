"""Pictures in files: an agent's tool reads one, and gives it back."""

from dataclasses import replace

from demo_model.conversation import Conversation, Message
from demo_model.skills import coding_skills, reading_skill
from demo_model.source import Source
from demo_model.topics_agent import EXTRA, SENTENCES, instructions, sentence, wordy
from demo_model.topics_tools import call_turn
from demo_vision.questions import Question

ENDINGS = ("png", "png", "png", "jpg", "jpeg", "webp", "gif")
WORDINGS = ("{read}. {asked}", "{read} and say: {asked}", "{asked} {read}.", "Look at {path}. {asked}")
HELD_OUT = ("Open the picture {path}: {asked}", "{asked} It is in {path}.")
_LONGEST = 500  # characters of instructions: pictures are many, and long prompts are rehearsed with text
_REMINDER = "<system-reminder>\n{0}\n</system-reminder>\n"


def path(source: Source) -> str:
    """The path of a picture."""
    return f"{source.path().rsplit('.', 1)[0]}.{source.any(ENDINGS)}"


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
        around = Message("system", instructions(source, source.rng.randint(50, _LONGEST)))
        talk.messages.insert(len(talk.messages) - 1, around)
    return talk.tool(image)
