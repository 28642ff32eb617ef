"""The Tiles CLI in memory mode, and a server that it talks to."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import Server, said

PROMPT = "You keep notes."


@dataclass
class Cli:
    """What the Tiles CLI does: it parses every line of every network chunk by itself, and relays code."""

    url: str
    last_reply: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)

    def post(self, text: str, *, start: bool = True, code: str = "", **more: Any) -> str:
        """One request; what the model said."""
        spoken = [{"role": "assistant", "content": self.last_reply}, {"role": "user", "content": text}]
        body = {"model": "any", "input": text, "chat_start": start, "python_code": code, "messages": spoken}
        body |= {"stream": True, "max_tokens": 8, "seed": 1} | more
        self.seen = []
        ended = False
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            for chunk in answer.iter_raw():
                for line in chunk.decode().splitlines():
                    if not line.startswith("data: "):
                        assert line == "" or line.startswith(":")
                        continue
                    assert not ended
                    data = line.removeprefix("data: ")
                    ended = data == "[DONE]"
                    if not ended:
                        self.seen.append(json.loads(data))
        assert ended
        return said(self.seen)

    def turn(self, text: str, relays: int = 8, **more: Any) -> str:
        """A whole turn of the user's: relays until a reply comes."""
        start, code = True, ""
        for _ in range(relays):
            spoken = self.post(text, start=start, code=code, **more)
            reply, code = between("reply", spoken), between("python", spoken)
            if reply or not code:
                self.last_reply = reply
                return reply
            start = False
        return ""


def between(tag: str, text: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found.group(1).strip() if found else ""


@dataclass
class Remembering:
    """A server with a memory."""

    server: Server
    memory: Path
    model: Path

    def start(self, **more: Any) -> httpx.Response:
        body = {"model": self.model.name, "model_cache_path": str(self.model), "memory_path": str(self.memory)}
        return self.server.client.post("/start", json=body | {"system_prompt": PROMPT} | more, timeout=60)

    def cli(self) -> Cli:
        """A client at the beginning of a session."""
        assert self.start().status_code == 200
        return Cli(self.server.url)

    def kept(self) -> list[tuple[str, str]]:
        """The conversation as the server keeps it."""
        file = self.server.home / "session.conversation.json"
        turns = json.loads(file.read_text())["turns"] if file.exists() else []
        return [(message["role"], message["content"]) for turn in turns for message in turn]

    def relayed(self, code: str) -> str:
        """The outcome of code, as the conversation has it."""
        cli = self.cli()
        cli.post("begin")
        cli.post("begin", start=False, code=code)
        return self.kept()[-2][1]
