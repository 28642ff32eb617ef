"""`tiles-server chat`: talk to a server in the terminal."""

import sys
from collections.abc import Callable, Iterator

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from app import settings
from app.commands.chat_client import ChatClient, Refused
from app.commands.chat_session import ChatSession


@click.command()
@click.option("--url", help="Where the server is; http://127.0.0.1:6969 if absent.")
@click.option("--api-key", metavar="KEY", help="The server's key; that of TILES_API_KEY if absent.")
@click.option("--model", metavar="NAME", help="The model to ask; the served one if absent.")
@click.option("--system", metavar="TEXT", default="", help="A system message.")
@click.option("--max-tokens", type=click.IntRange(1), help="The most tokens of an answer; as many as fit if absent.")
def chat(url: str | None, api_key: str | None, model: str | None, system: str, max_tokens: int | None) -> None:
    """Talk to a server in the terminal; /help says what else it does. Without a terminal every line is asked."""
    try:
        known = settings.read()
    except settings.SettingError as error:
        raise click.ClickException(str(error)) from None
    key = api_key or next(iter(known.api_key), None)
    try:
        talk = ChatSession(
            ChatClient(url or f"http://127.0.0.1:{known.port}", key),
            Console(highlight=False, soft_wrap=True),
            model=model,
            system=system,
            max_tokens=max_tokens,
        )
    except Refused as error:
        raise click.ClickException(str(error)) from None
    for line in _typed(talk.commands) if sys.stdin.isatty() else sys.stdin:
        talk.take(line)
        if talk.over:
            break


def _typed(commands: list[str]) -> Iterator[str]:
    """Give what is typed, line by line, until Ctrl-D. Ctrl-C drops a line."""
    ask: Callable[..., str] = PromptSession(
        completer=WordCompleter(commands, sentence=True), complete_while_typing=False, key_bindings=_keys()
    ).prompt
    while True:
        try:
            yield ask(ANSI("\x1b[1m>\x1b[0m "))
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
