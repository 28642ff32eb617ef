"""The conversation of a session with its memory agent: whole user turns, oldest first."""

from dataclasses import dataclass, field, replace

from app.services.generation import Message
from app.services.memory import outcome


@dataclass(slots=True)
class Turn:
    """What began with a word of the user, up to the next one: answers and the outcomes of their code in between."""

    messages: list[Message] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Append; two of one role become one, because templates want roles to alternate."""
        if self.messages and self.messages[-1].role == message.role:
            last = self.messages[-1]
            self.messages[-1] = replace(last, content=f"{last.content}\n{message.content}")
        else:
            self.messages.append(message)


@dataclass(slots=True)
class Conversation:
    """Everything said since the session began, as far as the context holds it."""

    turns: list[Turn] = field(default_factory=list)

    def copy(self) -> "Conversation":
        """Give one that can grow by itself."""
        return Conversation([Turn(list(turn.messages)) for turn in self.turns])

    def messages(self) -> tuple[Message, ...]:
        """Give all of it, without the system prompt; roles alternate and the first is the user's."""
        joined = Turn()
        for turn in self.turns:
            for message in turn.messages:
                joined.add(message)
        return tuple(joined.messages)

    def begin(self, reply: str, message: str) -> None:
        """Begin a turn of the user's. The reply last shown is added unless it is there, in an answer that was kept."""
        if reply.strip() and not self._holds(reply.strip()):
            self.turns = self.turns or [Turn()]
            self.turns[-1].add(Message("assistant", reply))
        self.turns.append(Turn([Message("user", message)]))

    def result(self, message: str) -> None:
        """Add the outcome of code."""
        self.turns = self.turns or [Turn()]
        self.turns[-1].add(Message("user", message))

    def answer(self, text: str) -> None:
        """Keep what the model said."""
        self.turns[-1].add(Message("assistant", text))

    def shorten(self) -> str | None:
        """Make it shorter by one step, and say which; None when only the newest words of the user are left.

        Whole old turns go first, then the results of the newest are cut, then its oldest pairs of code and result go.
        """
        if len(self.turns) > 1:
            self.turns.pop(0)
            return "turn dropped"
        newest = self.turns[-1].messages
        longest = max(range(len(newest)), key=lambda index: _cuttable(newest[index]))
        if (length := _cuttable(newest[longest])) > 256:
            cut = outcome.shorten(newest[longest].content, length // 2)
            newest[longest] = replace(newest[longest], content=cut)
            return "result cut"
        if len(newest) > 2:
            del newest[1:3]
            return "relay dropped"
        return None

    def _holds(self, reply: str) -> bool:
        return any(m.role == "assistant" and reply in m.content for turn in self.turns for m in turn.messages)


def _cuttable(message: Message) -> int:
    """Characters of a result that could be cut; 0 for what is none."""
    shortened = outcome.shorten(message.content, 0) if message.role == "user" else message.content
    return max(0, len(message.content) - len(shortened))
