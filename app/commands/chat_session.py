"""A conversation in the terminal: what was said so far, and what the words with a slash do."""

import unicodedata
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from rich.text import Text

from app.commands.chat_client import ChatClient, Figures, Refused, Said

HELP = """\
/model [NAME]   show the models, or ask another one from now on
/system [TEXT]  show the system message, or set it; `/system -` takes it away
/reset          forget the conversation
/exit           leave, as Ctrl-D does
Ctrl-C          end an answer
Alt-Enter       begin a new line\
"""


class ChatSession:
    """Holds the conversation and shows the answers."""

    def __init__(
        self,
        client: ChatClient,
        console: Console,
        *,
        model: str | None = None,
        system: str = "",
        max_tokens: int | None = None,
    ) -> None:
        self.over = False
        self._client = client
        self._console = console
        self._model = model
        self._system = system
        self._max_tokens = max_tokens
        self._turns: list[dict[str, str]] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/model": self._choose,
            "/system": self._instruct,
            "/reset": self._reset,
            "/exit": self._leave,
        }

    @property
    def commands(self) -> list[str]:
        """The words with a slash."""
        return list(self._commands)

    def take(self, line: str) -> None:
        """Do what a line of the user's says: answer it, or what its word with a slash asks for."""
        line = line.strip()
        word, _, rest = line.partition(" ")
        try:
            if line.startswith("/"):
                self._commands.get(word, self._unknown)(rest.strip())
            elif line:
                self._answer(line)
        except Refused as error:
            self._show(f"{error}\n", "red")

    def _answer(self, line: str) -> None:
        self._turns.append({"role": "user", "content": line})
        told = [{"role": "system", "content": self._system}] if self._system else []
        answer = _Shown(self._show)
        try:
            with closing(
                self._client.answer([*told, *self._turns], model=self._model, max_tokens=self._max_tokens)
            ) as said:
                for piece in said:
                    answer.take(piece)
        except KeyboardInterrupt:
            self._show("\n(ended)\n", "dim")
        except Refused:
            self._turns.pop()
            self._show("\n" if answer.begun else "")
            raise
        self._turns.append({"role": "assistant", "content": answer.text})

    def _help(self, _: str) -> None:
        self._show(f"{HELP}\n", "dim")

    def _choose(self, name: str) -> None:
        known = self._client.models()
        if not name:
            self._show("".join(f"{'*' if model == self._model else ' '} {model}\n" for model in known), "dim")
        elif name not in known:
            self._show(f"The server has no model '{name}'; /model lists those that it has\n", "red")
        else:
            self._model = name
            self._show(f"{name} answers from now on\n", "dim")

    def _instruct(self, text: str) -> None:
        if text:
            self._system = "" if text == "-" else text
        self._show(f"{self._system or '(no system message)'}\n", "dim")

    def _reset(self, _: str) -> None:
        self._turns.clear()
        self._show("The conversation is forgotten\n", "dim")

    def _leave(self, _: str) -> None:
        self.over = True

    def _unknown(self, _: str) -> None:
        self._show("That is no command; /help lists them\n", "red")

    def _show(self, text: str, style: str = "") -> None:
        self._console.print(Text(_printable(text), style), end="", soft_wrap=True)


class _Shown:
    """One answer on its way to the screen; `text` is what goes back to the model."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self.text = ""
        self.begun = False
        self._show = show
        self._thinking = False

    def take(self, piece: Said | Figures) -> None:
        """Show a piece: thoughts dimmed, the figures on a line of their own at the end."""
        if isinstance(piece, Figures):
            self._show(f"\n{_told(piece)}\n", "dim")
            return
        if self._thinking and not piece.thought:
            self._show("\n", "")
        self.begun, self._thinking = True, piece.thought
        self._show(piece.text, "dim" if piece.thought else "")
        if not piece.thought:
            self.text += piece.text


def _told(figures: Figures) -> str:
    parts = [
        f"{figures.tokens} tokens",
        f"{figures.tokens_per_second:.1f} tokens/s",
        f"first after {figures.first_token_seconds:.2f} s",
        f"prompt {figures.prompt_tokens}, {figures.cached_tokens} known",
    ]
    return ", ".join([*parts, "cut"] if figures.reason == "length" else parts)


def _printable(text: str) -> str:
    """Leave out what would steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")
