"""The server as it is, but for two things: a script says what its model answers, and each request is recorded.

    python -m tests.agents.scripted_server SCRIPT RECORDS serve --model FOLDER …

The answers are forced token by token upon a real model: prompts are rendered, computed, cached and found again as ever,
and what is forced goes through detokenizer, parser and dialect as what is drawn does.
"""

import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send, WebSocketScope

from app.request_context import log_fields_of
from app.services.engine.loaded_model import LoadedModel
from app.services.engine.prompt import Prompt
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.generation import GenerationRequest
from app.services.generation import Message as ChatMessage

ONLOOKER = "onlooker"  # the User-Agent of those who look at the server beside the program
_OTHERS = frozenset({ONLOOKER, ""})  # `launch`, which looks before it starts a program, has none
_SUMS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_ENDING = re.compile(r'\{"type":"(?:response\.(?:completed|incomplete|failed)|error)"')


@dataclass(frozen=True)
class Script:
    """What the model answers. A turn begins with a message that holds its name in brackets; how many answers came since
    tells which is next. Requests of no turn, such as for a title, are answered with `otherwise`.
    """

    turns: dict[str, list[Any]]  # texts, or {"tool": name, "arguments": {…}}
    otherwise: str = "A session about tiles"
    has_tools: bool = True  # the program's requests; those without any are then of no turn

    @classmethod
    def read(cls, path: Path) -> "Script":
        return cls(**json.loads(path.read_text()))

    def answer(self, turn: str | None, request: GenerationRequest) -> str:
        if turn is None:
            return self.otherwise
        answers, count = self.turns[turn], _answers(self._since(turn, request))
        answer = answers[min(count, len(answers) - 1)]
        return answer if isinstance(answer, str) else _call(answer["tool"], answer["arguments"])

    def turn(self, request: GenerationRequest) -> str | None:
        """Tell the turn of a request that carries it on: it ends with what begins it, or with what a tool gave."""
        if self.has_tools and not request.tools:
            return None
        names = [name for message in request.messages for name in self._names(message)]
        latest = itertools.takewhile(lambda message: message.role != "assistant", reversed(request.messages))
        return names[-1] if names and any(self._names(last) or last.role == "tool" for last in latest) else None

    def _since(self, turn: str, request: GenerationRequest) -> Sequence[ChatMessage]:
        first = max(index for index, message in enumerate(request.messages) if turn in self._names(message))
        return request.messages[first:]

    def _names(self, message: ChatMessage) -> list[str]:
        names = re.findall(r"\[([\w-]+)\]", message.content) if message.role == "user" else []
        return [name for name in names if name in self.turns]


def _answers(messages: Sequence[ChatMessage]) -> int:
    return sum(message.role == "assistant" for message in messages)


def _call(name: str, arguments: dict[str, Any]) -> str:
    """A call as the demo model's template writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


def force(script: Script, turns: dict[int, str | None]) -> None:
    """Have every model say what the script says, unless a request binds its answer to a grammar of its own.

    `turns` gets the turn of each prompt, by its tokens.
    """
    make_row = LoadedModel.make_row

    def forced(
        model: LoadedModel,
        prompt: Prompt,
        request: GenerationRequest,
        generation: RunningGeneration | None,
        index: int = 0,
    ) -> Row:
        row = make_row(model, prompt, request, generation, index)
        if generation is not None and request.constraint is None and request.prompt is None:
            turn = turns[len(prompt.tokens)] = script.turn(request)
            text = ("I know.\n</think>\n\n" if prompt.thinking else "") + script.answer(turn, request)
            end = max(model.facts.end_tokens)
            row.forced_tokens.update(enumerate([*model.prompts.tokenize(text), end]))
        return row

    LoadedModel.make_row = forced  # type: ignore[method-assign]


class Recorder:
    """An ASGI layer around the server: writes down each request, and what came of it, a file each."""

    def __init__(self, app: ASGIApp, folder: Path, turns: Mapping[int, str | None]) -> None:
        self._app = app
        self._turns = turns
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(1 + len(list(folder.glob("*.json"))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._app(scope, *self._on_socket(scope, receive, send))
            return
        if scope["type"] != "http" or _agent(scope) in _OTHERS:
            await self._app(scope, receive, send)
            return
        number, start = next(self._numbers), time.time()
        body, reply, status, left = bytearray(), bytearray(), 0, False

        async def hear() -> Any:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
            elif not reply_ended:
                left = True
            return message

        reply_ended = False

        async def tell(message: Message) -> None:
            nonlocal status, reply_ended
            if message["type"] == "http.response.start":
                status = message["status"]
                self._write(
                    number, {"method": scope["method"], "path": scope["path"], "start": start, "status": status}
                )
            elif message["type"] == "http.response.body":
                reply.extend(message["body"])
                reply_ended = not message.get("more_body")
            await send(message)

        try:
            await self._app(scope, hear, tell)
        finally:
            log = dict(log_fields_of(scope))
            entry = {
                "method": scope["method"],
                "path": scope["path"],
                "agent": _agent(scope),
                "start": start,
                "seconds": time.time() - start,
                "status": status,
                "left": left,
                "body": _parsed(bytes(body)),
                "cache": _cache(bytes(reply)),
                "reply": reply.decode(errors="replace") if len(reply) < 2**20 else "",
                "log": log,
                "turn": self._turns.get(log.get("prompt_tokens", 0)),
                "ended": True,
            }
            self._write(number, entry)

    def _on_socket(self, scope: WebSocketScope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """Write down the requests that come over a WebSocket, one after the other: what it logs are sums of them."""
        log_fields = log_fields_of(scope)
        waiting: list[tuple[int, dict[str, Any]]] = []
        before: Counter[str] = Counter()

        def end(text: str, *, left: bool) -> None:
            number, entry = waiting.pop(0)
            sums = Counter({name: log_fields.get(name, 0) for name in _SUMS})
            log = {name: sums[name] - before[name] for name in _SUMS if not left or name == "prompt_tokens"}
            before.update(sums - before)
            entry |= {"seconds": time.time() - entry["start"], "left": left, "log": log, "ended": True}
            entry |= {"cache": _cache(text.encode()), "turn": self._turns.get(log["prompt_tokens"])}
            if '"type":"error"' in text or '"type":"response.failed"' in text:
                log["error"] = text
            self._write(number, entry)

        async def hear() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive" and (body := _parsed((message["text"] or "").encode())):
                entry = {"method": "SOCKET", "path": scope["path"], "start": time.time(), "status": 200, "body": body}
                if body.get("type") == "response.create":
                    waiting.append((next(self._numbers), entry))
                    self._write(*waiting[-1])
            elif message["type"] == "websocket.disconnect":
                while waiting:
                    end("", left=True)
            return message

        async def tell(message: Message) -> None:
            await send(message)
            if message["type"] == "websocket.send" and _ENDING.match(message["text"] or ""):
                end(message["text"] or "", left=False)

        return hear, tell

    def _write(self, number: int, entry: dict[str, Any]) -> None:
        """Write an entry whole; one of a request that goes on is written over when it ends."""
        path = self._folder / f"{number:04d}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(entry, ensure_ascii=False, indent=1))
        part.rename(path)


def _agent(scope: HTTPScope) -> str:
    return dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _cache(reply: bytes) -> Any:
    """What the reply, streamed or whole, says of the prefix cache."""
    texts = [line.removeprefix(b"data: ") for line in reply.splitlines() if line.startswith(b"data: {")] or [reply]
    for text in reversed(texts):
        if b'"tiles"' in text:
            for inner in _dicts(_parsed(text)):
                if isinstance(tiles := inner.get("tiles"), dict) and "cache" in tiles:
                    return tiles["cache"]
    return None


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(inner)


def record(folder: Path, turns: Mapping[int, str | None]) -> None:
    """Put a recorder around every app that is made."""
    from app import application

    create_app = application.create_app

    def recorded(*arguments: Any, **more: Any) -> Any:
        return Recorder(create_app(*arguments, **more), folder, turns)

    application.create_app = recorded


def main(arguments: Sequence[str]) -> None:
    from app.commands.cli import main as run

    script, records, *command = arguments
    turns: dict[int, str | None] = {}
    force(Script.read(Path(script)), turns)
    record(Path(records), turns)
    run(command)


if __name__ == "__main__":
    main(sys.argv[1:])
