"""What is checked of a chat template of a real model, over HTTP, on a tiny model that has the template's markers."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.families.processes import Client, Reference, Wrong, server

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a place.",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
    },
}
_MARKER = re.compile(r"<[|｜]?[\w:/▁ -]+[|｜]?>|\[/?[A-Z_]+\]|]<]minimax\[>\[")  # noqa: RUF001
Message = dict[str, Any]


def _conversation(shape: str) -> list[Message]:
    """Make a conversation of its turns, each with words of its own."""
    messages: list[Message] = []
    results = 0
    for index, turn in enumerate(shape.split()):
        content = f"word{index}text"
        calls = 0
        match turn:
            case "system" | "user" | "assistant":
                messages.append({"role": turn, "content": content})
            case "thinking":
                messages.append({"role": "assistant", "content": content, "reasoning_content": f"word{index}thought"})
            case "result":
                messages.append({"role": "tool", "tool_call_id": f"abcdefgh{results}", "content": content})
                results += 1
            case _:
                calls, text = {"call": (1, ""), "calls": (2, ""), "text+call": (1, content), "thought+call": (1, "")}[
                    turn
                ]
                message = {"role": "assistant", "content": text}
                message["tool_calls"] = [
                    {
                        "id": f"abcdefgh{results + number}",
                        "type": "function",
                        "function": {"name": "look_up", "arguments": json.dumps({"city": f"word{index}{number}city"})},
                    }
                    for number in range(calls)
                ]
                if turn == "thought+call":
                    message["reasoning_content"] = f"word{index}thought"
                messages.append(message)
    return messages


ORDINARY = (  # what templates are made for: it comes out as they have it
    "user",
    "system user",
    "user assistant user",
    "user thinking user",
    "user call result",
    "system user call result assistant user",
    "user calls result result",
    "user text+call result assistant user call result",
    "user thought+call result",
)
SHAPES = (
    *ORDINARY,
    "system",
    "system system user",
    "user system",
    "user assistant system user",
    "user user",
    "user assistant assistant user",
    "assistant user",
    "user call user",
    "user result",
)


def _words(messages: list[Message]) -> set[str]:
    """The words that may not be lost: all but the reasoning, which templates leave out on purpose."""
    return set(re.findall(r"word\w+(?:text|city)", json.dumps(messages)))


def check(path: Path, home: Path) -> dict[str, str]:
    """Check a template. Returns for each check what there is to say of it; what begins with WRONG is wrong."""
    folder = home / "model"
    from mlx_lm.tokenizer_utils import load

    reference = Reference(partial(_build, path.read_text(), folder), home / "reference.log")
    results: dict[str, str] = {}
    try:
        reference.built()
        with server(home, "--model", str(folder), "--data-dir", str(home / "data")) as client:
            tokenizer = load(folder)
            results |= _markup(tokenizer)
            for name, run in (
                ("conversations", partial(_conversations, client, tokenizer, [])),
                ("conversations with tools", partial(_conversations, client, tokenizer, [TOOL])),
                ("continued answer", partial(_continued, client)),
                ("tools", partial(_tools, client)),
                ("reasoning beside calls", partial(_reasoning, client)),
                ("grammar of calls", partial(_required_call, client)),
            ):
                try:
                    results[name] = run()
                except Wrong as error:
                    results[name] = f"WRONG {error}"
    except (Wrong, pytest.fail.Exception) as error:
        results["load"] = f"WRONG {error}"
    finally:
        reference.close()
    return results


def _build(source: str, folder: Path) -> Path:
    """Build a tiny model with the template, and with a tokenizer of bytes that has the template's markers."""
    from tests.engine.architectures import build
    from tests.engine.families import Family, byte_tokenizer

    build("llama", folder)
    (folder / "generation_config.json").unlink()
    tokenizer = byte_tokenizer(folder, Family(None, source), tuple(sorted(set(_MARKER.findall(source)))))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": tokenizer.eos_token}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": tokenizer.eos_token_id}))
    return folder


def _prompt(client: Client, messages: list[Message], **more: Any) -> str:
    return str(client.ask("/apply-template", messages=messages, **more)["prompt"])


def _conversations(client: Client, tokenizer: Any, tools: list[Any]) -> str:
    """Nothing is lost; and what the template takes as it is comes out as the template has it."""
    from app.services.engine.output.template_clues import takes_tools, template_text

    has_tools = takes_tools(template_text(tokenizer))
    faults = []
    for shape in SHAPES:
        messages = _conversation(shape)
        try:
            prompt = _prompt(client, messages, **({"tools": tools} if tools else {}))
        except Wrong as error:
            faults.append(f"{shape}: {error}")
            continue
        if lost := sorted(word for word in _words(messages) if word not in prompt):
            faults.append(f"{shape}: lost {', '.join(lost)}")
        if shape not in ORDINARY or (tools and not has_tools):  # then they stand in the system prompt
            continue
        # Ours gives reasoning back where the template looks for it, whatever the name of that is.
        words = {word for word in re.findall(r"word\w+", json.dumps(messages)) if word in prompt}
        theirs = [text for text in _by_template(tokenizer, messages, tools) if all(word in text for word in words)]
        if theirs and prompt not in theirs:
            faults.append(f"{shape}: not as the template has it")
    if faults:
        raise Wrong("; ".join(faults))
    return "ok"


def _by_template(tokenizer: Any, messages: list[Message], tools: list[Any]) -> list[str]:
    """What the template makes of messages as they are, with arguments as text and as objects, where it takes them."""
    objects: list[Message] = json.loads(json.dumps(messages))
    for message in objects:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    texts = []
    for variant in (messages, objects):
        for renderer in (tokenizer, tokenizer._tokenizer):  # mlx-lm's turns thinking on
            try:
                texts.append(
                    renderer.apply_chat_template(
                        variant, tools=tools or None, tokenize=False, add_generation_prompt=True
                    )
                )
            except Exception:
                continue
    return texts


def _continued(client: Client) -> str:
    for shape in ("user assistant", "system user assistant user assistant"):
        messages = _conversation(shape)
        prompt = _prompt(client, messages, continue_final_message=True, add_generation_prompt=False)
        if not prompt.endswith(messages[-1]["content"]):
            raise Wrong(f"{shape}: ends with {prompt[-40:]!r}")
    return "ok"


def _tools(client: Client) -> str:
    prompt = _prompt(client, _conversation("user"), tools=[TOOL])
    return "told" if "look_up" in prompt else "not told"


def _reasoning(client: Client) -> str:
    prompt = _prompt(client, _conversation("user thought+call result"), tools=[TOOL])
    return "given back" if "word1thought" in prompt else "left out"


def _required_call(client: Client) -> str:
    body = {"messages": _conversation("user"), "tools": [TOOL], "tool_choice": "required", "max_tokens": 400}
    answer = client.post("/v1/chat/completions", json=body | {"temperature": 0})
    if answer.status_code == 400:
        return "no"
    if answer.status_code != 200:
        raise Wrong(f"a required call: {answer.status_code} {answer.text[:200]}")
    choice = answer.json()["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    if choice["finish_reason"] == "length":
        return "yes"  # it is still thinking
    if not calls or json.loads(calls[0]["function"]["arguments"]).get("city") not in ("Oslo", "Rome"):
        raise Wrong(f"a required call: {json.dumps(choice)[:300]}")
    return "yes"


def _markup(tokenizer: Any) -> dict[str, str]:
    """The markers of reasoning and calls, as the server finds them."""
    from app.services.engine.output.markup import Markup

    markup = Markup.of(tokenizer)
    reasoning = [marker for marker in (markup.think_start, markup.think_end) if marker]
    if not reasoning:
        reasoning = sorted(
            {marker for edges in markup.transitions.values() for marker, to in edges if to == "reasoning"}
        )
    calls = [markup.calls.starts[0]] if markup.calls and markup.calls.starts else []
    if not calls:
        calls = sorted({marker for edges in markup.transitions.values() for marker, to in edges if to == "tool"})
    return {"reasoning": " ".join(reasoning), "calls": " ".join(calls)}
