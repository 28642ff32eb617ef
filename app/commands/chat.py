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
from app.commands.chat_client import ChatClient
from app.commands.chat_session import ChatSession
from app.commands.server_client import ServerFailure


@click.command()
@click.option("--url", help="Address of the server, or unix:PATH; the one on this machine by default.")
@click.option("--api-key", metavar="KEY", help="API key of the server; TILES_API_KEY by default.")
@click.option("--model", metavar="NAME", help="Model to use; the one that is served by default.")
@click.option("--system", metavar="TEXT", default="", help="System message.")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens per answer; as many as fit by default.")
def chat(url: str | None, api_key: str | None, model: str | None, system: str, max_tokens: int | None) -> None:
    """Chat with a server in the terminal; /help lists the commands. Without a terminal, each line is a message."""
    try:
        defaults = settings.read()
    except settings.SettingError as error:
        raise click.ClickException(str(error)) from None
    try:
        session = ChatSession(
            ChatClient.of(defaults, url, api_key),
            Console(highlight=False, soft_wrap=True),
            model=model,
            system=system,
            max_tokens=max_tokens,
        )
    except ServerFailure as error:
        raise click.ClickException(str(error)) from None
    for line in _read_lines(session.commands) if sys.stdin.isatty() else sys.stdin:
        session.take(line)
        if session.is_over:
            break


def _read_lines(commands: list[str]) -> Iterator[str]:
    """Give the lines that are typed, until Ctrl-D. Ctrl-C drops a line."""
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
