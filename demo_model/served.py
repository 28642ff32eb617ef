"""Answers to items from a server with the model: what a client gets, through the server's own engine."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from demo_model.conversation import Message
from demo_model.items import Item

AT_ONCE = 16
LONGEST = 160  # tokens of an answer
START_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """What the model answered to an item, calls as the chat template writes them, and whether it ended by itself."""

    item: Item
    text: str
    ended: bool


@contextmanager
def serving(folder: Path) -> Iterator[httpx.Client]:
    """Run a server with the model of a folder, in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "server.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILES_", "HF_"))}
        command = [sys.executable, "-m", "app", "serve", "--model", str(folder), "--port", "0", "--log-format", "json"]
        with log.open("w") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env=kept | {"HOME": home, "NO_COLOR": "1"})
        try:
            with httpx.Client(base_url=_address(process, log), timeout=600) as client:
                yield client
        finally:
            process.terminate()
            process.wait(30)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until the server has its model. Raises RuntimeError with its log if that does not come."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        match = re.search(r"^API +(http://\S+)/v1$", log.read_text(), re.MULTILINE)
        if match and _is_ready(match[1]):
            return match[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def answers(client: httpx.Client, items: list[Item], call_grammar: str) -> list[Outcome]:
    """Greedy answers, many at once; `call_grammar` is `lazy`, the server's own way, or `off`."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_answer, client, call_grammar), items))


def _answer(client: httpx.Client, call_grammar: str, item: Item) -> Outcome:
    answer = client.post("/v1/chat/completions", json=request(item) | {"tool_call_grammar": call_grammar})
    answer.raise_for_status()
    choice = answer.json()["choices"][0]
    text = _as_text(choice["message"])
    if item.thinking:
        text = text.removeprefix("<think>\n")  # the prompt has opened it
    return Outcome(item, text, choice["finish_reason"] in ("stop", "tool_calls"))


def request(item: Item) -> dict[str, Any]:
    """The body of a chat completion that asks an item."""
    body: dict[str, Any] = {
        "messages": list(_as_openai(item.messages)),
        "temperature": 0,
        "max_tokens": LONGEST,
        "reasoning_format": "none",
        "chat_template_kwargs": {"enable_thinking": item.thinking},
    }
    if item.tools:
        body["tools"] = item.tools
    if item.schema is not None:
        schema = {"name": "answer", "schema": item.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _as_openai(messages: list[Message]) -> Iterator[dict[str, Any]]:
    pending: list[str] = []
    for place, message in enumerate(messages):
        if message.role == "tool":
            yield {"role": "tool", "tool_call_id": pending.pop(0), "content": message.content}
            continue
        pending = [f"call_{place}_{number}" for number in range(len(message.calls))]
        calls = [
            {"id": number, "type": "function", "function": {**call, "arguments": _json(call["arguments"])}}
            for number, call in zip(pending, message.calls, strict=True)
        ]
        yield {"role": message.role, "content": message.content} | ({"tool_calls": calls} if calls else {})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_text(message: dict[str, Any]) -> str:
    """An answer as the model wrote it."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [
        f'<tool_call>\n{{"name": {_json(one["name"])}, "arguments": {one["arguments"]}}}\n</tool_call>'
        for one in functions
    ]
    return "\n".join([text for text in [message.get("content") or ""] if text] + calls)
