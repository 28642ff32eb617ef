"""A conversation in the terminal: its messages, and the commands that begin with a slash."""

import unicodedata
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from rich.text import Text

from app.commands.chat_client import ChatClient, Figures, TextPiece
from app.commands.server_client import ServerFailure

HELP = """\
/model [NAME]   list the models, or switch to another one
/system [TEXT]  show the system message, or set it; `/system -` removes it
/reset          start a new conversation
/exit           leave, as Ctrl-D does
Ctrl-C          stop an answer
Alt-Enter       start a new line\
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
        self.is_over = False
        self._client = client
        self._console = console
        self._model = model
        self._system = system
        self._max_tokens = max_tokens
        self._turns: list[dict[str, str]] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/model": self._select_model,
            "/system": self._set_system,
            "/reset": self._reset,
            "/exit": self._leave,
        }

    @property
    def commands(self) -> list[str]:
        """The commands that begin with a slash."""
        return list(self._commands)

    def take(self, line: str) -> None:
        """Run a line of the user's: a command, or a message to answer."""
        line = line.strip()
        word, _, rest = line.partition(" ")
        try:
            if line.startswith("/"):
                self._commands.get(word, self._unknown)(rest.strip())
            elif line:
                self._answer(line)
        except ServerFailure as error:
            self._show(f"{error}\n", "red")

    def _answer(self, line: str) -> None:
        self._turns.append({"role": "user", "content": line})
        system = [{"role": "system", "content": self._system}] if self._system else []
        answer = _AnswerPrinter(self._show)
        try:
            with closing(
                self._client.answer([*system, *self._turns], model=self._model, max_tokens=self._max_tokens)
            ) as stream:
                for piece in stream:
                    answer.take(piece)
        except KeyboardInterrupt:
            self._show("\n(stopped)\n", "dim")
        except ServerFailure:
            self._turns.pop()
            self._show("\n" if answer.has_output else "")
            raise
        self._turns.append({"role": "assistant", "content": answer.text})

    def _help(self, _: str) -> None:
        self._show(f"{HELP}\n", "dim")

    def _select_model(self, name: str) -> None:
        names = self._client.models()
        if not name:
            self._show("".join(f"{'*' if model == self._model else ' '} {model}\n" for model in names), "dim")
        elif name not in names:
            self._show(f"The server has no model '{name}'; /model lists its models\n", "red")
        else:
            self._model = name
            self._show(f"{name} answers from now on\n", "dim")

    def _set_system(self, text: str) -> None:
        if text:
            self._system = "" if text == "-" else text
        self._show(f"{self._system or '(no system message)'}\n", "dim")

    def _reset(self, _: str) -> None:
        self._turns.clear()
        self._show("A new conversation\n", "dim")

    def _leave(self, _: str) -> None:
        self.is_over = True

    def _unknown(self, _: str) -> None:
        self._show("Unknown command; /help lists the commands\n", "red")

    def _show(self, text: str, style: str = "") -> None:
        self._console.print(Text(_printable(text), style), end="", soft_wrap=True)


class _AnswerPrinter:
    """Shows one answer as it comes; `text` is what goes back to the model."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self.text = ""
        self.has_output = False
        self._show = show
        self._in_reasoning = False

    def take(self, piece: TextPiece | Figures) -> None:
        """Show a piece: reasoning dimmed, the figures on a line of their own at the end."""
        if isinstance(piece, Figures):
            self._show(f"\n{_describe(piece)}\n", "dim")
            return
        if self._in_reasoning and not piece.is_reasoning:
            self._show("\n", "")
        self.has_output, self._in_reasoning = True, piece.is_reasoning
        if not piece.is_reasoning:
            self.text += piece.text  # before it is shown: whoever stops the answer there has seen it
        self._show(piece.text, "dim" if piece.is_reasoning else "")


def _describe(figures: Figures) -> str:
    parts = [
        f"{figures.tokens} tokens",
        f"{figures.tokens_per_second:.1f} tokens/s",
        f"first token after {figures.first_token_seconds:.2f} s",
        f"prompt {figures.prompt_tokens}, {figures.cached_tokens} cached",
    ]
    return ", ".join([*parts, "cut off"] if figures.finish_reason == "length" else parts)


def _printable(text: str) -> str:
    """Leave out control characters, which the terminal would obey."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")
