"""The dialects that stream: which bodies they can be sent, and what their answers say, whole or streamed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.conftest import events, said
from tests.message_events import blocks
from tests.message_events import events as message_events
from tests.response_events import events as response_events
from tests.tools import CHAT_TOOLS, MESSAGES_TOOLS, NAMES, RESPONSES_TOOLS, pieced

Json = dict[str, Any]
Fields = dict[str, SearchStrategy[Any]]


@dataclass(frozen=True, repr=False)
class Dialect:
    """A dialect: one of each of its `alternatives` is in a body, and any of `optional`; `apart` says what never is.

    `whole` and `streamed` read an answer, given the body that asked for it.
    """

    route: str
    alternatives: tuple[tuple[Fields, ...], ...]
    optional: Fields
    apart: dict[str, str]
    whole: Callable[[Json, Any], Any]
    streamed: Callable[[Json, str], Any]

    @property
    def drawn(self) -> set[str]:
        """The parameters that bodies may have."""
        return {name for group in self.alternatives for fields in group for name in fields} | self.optional.keys()

    def several_bodies(self) -> SearchStrategy[list[Json]]:
        """One to four bodies that are answered, each with a seed and not too long."""
        groups = [st.one_of(*map(st.fixed_dictionaries, group)) for group in self.alternatives]
        body = st.tuples(st.fixed_dictionaries({}, optional=self.optional), *groups).map(_merged)
        return st.lists(body, min_size=1, max_size=4)


def _merged(parts: tuple[Json, ...]) -> Json:
    body = {name: value for part in parts for name, value in part.items()}
    *before, last = body.get("messages") or [{}]
    if last.get("role") == "assistant" and (start := _start(body)):
        body["messages"] = [*before, last | {"content": start}]
    return body


def _start(body: Json) -> str:
    """What an answer may begin with that a grammar holds, nothing where none does."""
    output = body.get("response_format") or body.get("output_format") or body.get("output_config") or {"type": "text"}
    if "json_schema" in body or output.get("type") != "text":
        return '{"name": "'
    if "grammar" in body:
        return "1" if isinstance(body["grammar"], str) else "a"
    if "regex" in body:
        return "ab" if body["regex"].startswith("[a-z]") else "é"
    return "n" if "choice" in body else ""


def of(*values: Any) -> SearchStrategy[Any]:
    """One of these values."""
    return st.sampled_from(values)


SEED = st.integers(0, 2**32)
LENGTHS = of(0, 1, 6, 24, 24, 60)
BOOLS = st.booleans()
CALL_GRAMMARS = of("lazy", "off")
TEMPERATURES, TOP_PS, TOP_KS = of(0, 0.7, 1, 1, 2.5), of(0.3, 0.95, 1), of(-1, 0, 1, 30)
STOPS = of("e", " the", ["o", "zz"], ["\n", "th"])

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"enum": ["small", "large", "ß"]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
FORMATS = of(
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}},
)
GRAMMARS = of('root ::= ("ab" | "ü" | [0-9])+', {"type": "lark", "grammar": "start: /[a-f ]{2,20}/"})
FREE: Fields = {}

SAMPLED: Fields = {
    "temperature": TEMPERATURES,
    "top_p": TOP_PS,
    "top_k": TOP_KS,
    "min_p": of(0, 0.1),
    "xtc_probability": of(0, 0.5, 1),
    "xtc_threshold": of(0.02, 0.1, 0.6),
    "stop": STOPS,
    "presence_penalty": of(-1, 0, 0.8),
    "frequency_penalty": of(-0.5, 0, 0.8),
    "repetition_penalty": of(0.8, 1, 1.3),
    "repeat_penalty": of(1, 1.2),
    "repeat_last_n": of(-1, 0, 4, 64),
    "typical_p": of(0.3, 0.9, 1),
    "typ_p": of(0.3, 1),
    "top_n_sigma": of(-1, 0, 1.5),
    "dynatemp_range": of(0, 0.5),
    "dynatemp_exponent": of(0.5, 1, 2),
    "min_keep": of(0, 3),
    "samplers": of(
        ["top_k", "typ_p", "temperature"],
        "temperature;min_p;xtc",
        "edskypmxt",
        ["xtc", "penalties", "dry", "top_p"],
        [],
    ),
    "dry_multiplier": of(0, 0.8, 5),
    "dry_base": of(0, 1.2, 1.75),
    "dry_allowed_length": of(0, 1, 2),
    "dry_penalty_last_n": of(-1, 0, 8, 64),
    "dry_sequence_breakers": of(["\n", ":"], [" the", "en"]),
    "logit_bias": of({"300": 6, "41": -100, " the": 3, "q": False}, [["the", 5], [42, False]]),
    "ignore_eos": BOOLS,
}
SHARED: Fields = SAMPLED | {
    "max_completion_tokens": LENGTHS,
    "n_predict": LENGTHS,
    "lora": of([], [{"id": 0, "scale": 0.5}], [{"id": 1, "scale": 1}, {"id": 0, "scale": 0}]),
    "return_progress": BOOLS,
    "timings_per_token": BOOLS,
    "sse_ping_interval": of(-1, 0, 60),
    "id_slot": of(-1, 0, 3),
}
ALWAYS: tuple[Fields, ...] = ({"seed": SEED, "max_tokens": LENGTHS},)
BOUND: tuple[Fields, ...] = (
    FREE,
    {"json_schema": st.just(SCHEMA)},
    {"grammar": GRAMMARS},
    {"regex": of("[a-z]{3,9}", "(é|ö)+")},
    {"choice": st.just(["yes", "no", "nöö"])},
)
STREAM_OPTIONS = of({"include_usage": True}, {"include_usage": False})
APART = {"model": "one model answers to any name", "stream": "both ways are asked for"}

USER = {"role": "user", "content": "Tell me of the tiles"}
CONVERSATIONS = of(
    [USER],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [USER, {"role": "assistant", "content": "They are red."}, {"role": "user", "content": "And in the kitchen? " * 9}],
)
BEGUN = of([USER, {"role": "assistant", "content": "The kitchen floor"}])
PROMPTS = of("The kitchen", [5, 300, 301], ["The river", "No two of them are quite the same, are they?", [300, "é"]])


def tokens(reply: Json) -> tuple[int, int]:
    """The tokens of prompt and answer, by the usage or else by the timings."""
    if usage := reply.get("usage"):
        return usage["prompt_tokens"], usage["completion_tokens"]
    timings = reply["timings"]
    return timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]


def nameless(value: Any) -> Any:
    """Without ids, times, what was cached and whether it was streamed, which are others each time."""
    own = {"id", "call_id", "created_at", "completed_at", "timings", "cached_tokens", "id_slot", "stream"}
    if isinstance(value, dict):
        names = value.keys() - (own - {"id"} if isinstance(value.get("id"), int) else own)  # a token has a number
        return {name: nameless(value[name]) for name in value if name in names}
    return [nameless(item) for item in value] if isinstance(value, list) else value


# Chat completions.


def _chat_whole(body: Json, reply: Json) -> Any:
    choices = [
        {
            "content": choice["message"]["content"],
            "reasoning": choice["message"].get("reasoning_content", ""),
            "calls": [
                (call["function"]["name"], call["function"]["arguments"])
                for call in choice["message"].get("tool_calls", [])
            ],
            "logprobs": choice.get("logprobs", {}).get("content", []),
            "finish": choice["finish_reason"],
        }
        for choice in reply["choices"]
    ]
    return {"choices": choices, "tokens": tokens(reply)}


def _chat_streamed(body: Json, text: str) -> Any:
    chunks = events(text)
    begun = body["messages"][-1]["content"] if body.get("continue_final_message") else ""
    choices = [_chat_choice(own, begun) for own in _answers(chunks)]
    return {"choices": choices, "tokens": _summed(chunks)}


def _chat_choice(chunks: list[Json], begun: str) -> Json:
    return {
        "content": begun + said(chunks),
        "reasoning": said(chunks, "reasoning_content"),
        "calls": pieced(chunks),
        "logprobs": _scores(chunks),
        "finish": _finish(chunks),
    }


def _answers(chunks: list[Json]) -> list[list[Json]]:
    """The chunks of each answer, in their order."""
    places = sorted({choice["index"] for chunk in chunks for choice in chunk["choices"]})
    return [[chunk for chunk in chunks if [it["index"] for it in chunk["choices"]] == [place]] for place in places]


def _scores(chunks: list[Json]) -> list[Json]:
    told = [chunk["choices"][0].get("logprobs") or {} for chunk in chunks]
    return [score for part in told for score in part.get("content", [])]


def _finish(chunks: list[Json]) -> str:
    (reason,) = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert isinstance(reason, str)
    return reason


def _summed(chunks: list[Json]) -> tuple[int, int]:
    """The tokens of all answers to one prompt, which is counted once."""
    if "usage" in chunks[-1]:
        return tokens(chunks[-1])
    ends = [tokens(chunk) for chunk in chunks if any(choice["finish_reason"] for choice in chunk["choices"])]
    return ends[0][0], sum(end[1] for end in ends)


CHAT_CHOICES = of(
    *("auto", "none", "required", "required"),
    {"type": "function", "function": {"name": NAMES[1]}},
    {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHAT_TOOLS[0]]}},
)
CHAT = Dialect(
    route="/v1/chat/completions",
    alternatives=(
        ALWAYS,
        (
            {"messages": CONVERSATIONS},
            {"messages": CONVERSATIONS, "add_generation_prompt": BOOLS},
            {"messages": BEGUN, "continue_final_message": BOOLS, "add_generation_prompt": st.just(False)},
        ),
        (
            *BOUND,
            {"response_format": FORMATS},
            {
                "tools": st.just(CHAT_TOOLS),
                "tool_choice": CHAT_CHOICES,
                "parallel_tool_calls": BOOLS,
                "tool_call_grammar": CALL_GRAMMARS,
            },
        ),
        (FREE, {"logprobs": BOOLS}, {"logprobs": st.just(True), "top_logprobs": of(0, 3)}),
    ),
    optional=SHARED
    | {
        "n": of(1, 2, 3),
        "return_timing": BOOLS,
        "stream_options": STREAM_OPTIONS,
        "chat_template_kwargs": of({"enable_thinking": True}, {"enable_thinking": False}),
        "reasoning_effort": of("none", "minimal", "high", "max"),
        "reasoning_control": BOOLS,
        "thinking_budget_tokens": of(-1, 0, 5),
        "reasoning_format": of("auto", "none", "deepseek"),
    },
    apart=APART | dict.fromkeys(("input", "chat_start", "python_code"), "memory mode answers in another way"),
    whole=_chat_whole,
    streamed=_chat_streamed,
)

# Text completions.


def _completion_whole(body: Json, reply: Json) -> Any:
    choices = [
        (choice["text"], choice["finish_reason"], _lists(body, [choice["logprobs"]])) for choice in reply["choices"]
    ]
    return {"choices": choices, "tokens": tokens(reply)}


def _completion_streamed(body: Json, text: str) -> Any:
    chunks = events(text)
    choices = [
        (
            "".join(chunk["choices"][0]["text"] for chunk in own),
            _finish(own),
            _lists(body, [chunk["choices"][0]["logprobs"] for chunk in own]),
        )
        for own in _answers(chunks)
    ]
    return {"choices": choices, "tokens": tokens(chunks[-1])}


def _lists(body: Json, parts: list[Json | None]) -> Json:
    """The lists of an answer's scores, put together. Alternatives are null where none were asked for."""
    told = [part for part in parts if part]
    names = ["tokens", "token_logprobs", "text_offset", "content", *(["top_logprobs"] if body.get("logprobs") else [])]
    return {name: [item for part in told for item in part[name] or []] for name in names}


COMPLETION = Dialect(
    route="/v1/completions",
    alternatives=(
        ALWAYS,
        ({"prompt": PROMPTS},),
        BOUND,
        (FREE, {"echo": BOOLS}, {"echo": BOOLS, "logprobs": of(0, 3)}),
    ),
    optional=SHARED | {"n": of(1, 2, 3), "stream_options": STREAM_OPTIONS},
    apart=APART | {"suffix": "needs a model that fills in the middle"},
    whole=_completion_whole,
    streamed=_completion_streamed,
)

# llama.cpp's own completions.


def _native_whole(body: Json, reply: Any) -> Any:
    return nameless(reply if isinstance(reply, list) else [reply])


def _native_streamed(body: Json, text: str) -> Any:
    pieces = events(text, ended=False)
    ends = sorted((piece for piece in pieces if piece["stop"]), key=lambda piece: int(piece["index"]))
    return [nameless(end | dict(_joined(body, pieces, end["index"]))) for end in ends]


def _joined(body: Json, pieces: list[Json], index: int) -> Iterator[tuple[str, Any]]:
    own = [piece for piece in pieces if piece["index"] == index]
    yield "content", "".join(piece["content"] for piece in own)
    # Without return_tokens too. A piece that is left at the end may be of a token that was told with the one before.
    assert any(piece["tokens"] for piece in own) or not any(piece["content"] for piece in own)
    yield "tokens", [token for piece in own for token in piece["tokens"] if body.get("return_tokens")]
    if body.get("n_probs"):
        yield (
            "completion_probabilities",
            [score for piece in own for score in piece.get("completion_probabilities", [])],
        )


NATIVE = Dialect(
    route="/completion",
    alternatives=(ALWAYS, ({"prompt": PROMPTS},), BOUND),
    optional=SHARED | {"n_probs": of(0, 3), "post_sampling_probs": BOOLS, "return_tokens": BOOLS},
    apart=APART | {"response_fields": "leaves fields of the same object out"},
    whole=_native_whole,
    streamed=_native_streamed,
)

# Responses.


def _response_whole(body: Json, reply: Json) -> Any:
    return nameless(reply)


def _response_streamed(body: Json, text: str) -> Any:
    told = response_events(text)
    reply = told[-1]["response"]
    parts = [part for item in reply["output"] if item["type"] == "message" for part in item["content"]]
    deltas = [event for event in told if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in deltas) == "".join(part["text"] for part in parts)
    arguments = [event["delta"] for event in told if event["type"] == "response.function_call_arguments.delta"]
    calls = [item["arguments"] for item in reply["output"] if item["type"] == "function_call"]
    assert "".join(arguments) == "".join(calls)
    return nameless(reply)


RESPONSES = Dialect(
    route="/v1/responses",
    alternatives=(
        ({"input": of("Tell me of the tiles", [USER]), "seed": SEED, "max_output_tokens": LENGTHS, "store": BOOLS},),
        (
            FREE,
            {"text": FORMATS.map(lambda asked: {"format": asked | asked.get("json_schema", {})})},
            {
                "tools": st.just(RESPONSES_TOOLS),
                "tool_choice": of("auto", "none", "required", {"type": "function", "name": NAMES[0]}),
                "parallel_tool_calls": BOOLS,
                "tool_call_grammar": CALL_GRAMMARS,
            },
        ),
        (FREE, {"include": st.just(["message.output_text.logprobs"]), "top_logprobs": of(0, 3)}),
    ),
    optional={
        "instructions": of("Be brief.", "Be kind."),
        "temperature": TEMPERATURES,
        "top_p": TOP_PS,
        "presence_penalty": of(-1, 0, 0.8),
        "frequency_penalty": of(-0.5, 0, 0.8),
        "truncation": of("auto", "disabled"),
        "return_progress": BOOLS,
        "timings_per_token": BOOLS,
        "reasoning": of({"effort": "none"}, {"effort": "low"}, {"effort": "high", "summary": "auto"}),
        "metadata": of({"for": "tests"}),
    },
    apart=APART | {"previous_response_id": "needs the id of an answer"},
    whole=_response_whole,
    streamed=_response_streamed,
)

# Messages.


def _message_whole(body: Json, reply: Json) -> Any:
    return {
        "content": nameless(reply["content"]),
        "stop": (reply["stop_reason"], reply["stop_sequence"]),
        "tokens": reply["usage"]["output_tokens"],
    }


def _message_streamed(body: Json, text: str) -> Any:
    told = message_events(text)
    end = next(event for event in told if event["type"] == "message_delta")
    return {
        "content": nameless(blocks(told)),
        "stop": (end["delta"]["stop_reason"], end["delta"]["stop_sequence"]),
        "tokens": end["usage"]["output_tokens"],
    }


MESSAGES = Dialect(
    route="/v1/messages",
    alternatives=(
        ({"seed": SEED, "max_tokens": LENGTHS},),
        ({"messages": of([USER], [USER, {"role": "assistant", "content": "The kitchen floor"}])},),
        (
            FREE,
            {"output_format": st.just({"type": "json_schema", "schema": SCHEMA})},
            {"output_config": st.just({"format": {"type": "json_schema", "schema": SCHEMA}})},
            {
                "tools": st.just(MESSAGES_TOOLS),
                "tool_choice": of(
                    *({"type": "auto"}, {"type": "none"}, {"type": "any", "disable_parallel_tool_use": True}),
                    {"type": "tool", "name": NAMES[0]},
                ),
                "tool_call_grammar": CALL_GRAMMARS,
            },
        ),
    ),
    optional={
        "return_timing": BOOLS,
        "system": of("Be brief.", [{"type": "text", "text": "Be kind."}]),
        "stop_sequences": of(["e"], ["o", "zz"]),
        "temperature": TEMPERATURES,
        "top_p": TOP_PS,
        "top_k": TOP_KS,
        "thinking": of(
            *({"type": "enabled", "budget_tokens": 5}, {"type": "disabled"}, {"type": "adaptive"}),
            {"type": "enabled", "budget_tokens": 5, "display": "omitted"},
        ),
    },
    apart=APART,
    whole=_message_whole,
    streamed=_message_streamed,
)

# Ollama's.


def _ollama_whole(body: Json, reply: Json) -> Any:
    message = reply.get("message", {"content": reply.get("response"), "thinking": reply.get("thinking", "")})
    assert reply["done"] and reply["total_duration"] >= 0
    return {
        "content": message["content"],
        "reasoning": message.get("thinking", ""),
        "calls": nameless(message.get("tool_calls", [])),
        "logprobs": reply.get("logprobs", []),
        "end": (reply["done_reason"], reply["prompt_eval_count"], reply["eval_count"]),
    }


def _ollama_streamed(body: Json, text: str) -> Any:
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    own = [
        line.get("message", {"content": line.get("response"), "thinking": line.get("thinking", "")}) for line in lines
    ]
    calls = [call for message in own for call in message.get("tool_calls", [])]
    whole = {
        "content": "".join(message["content"] for message in own),
        "thinking": "".join(message.get("thinking", "") for message in own),
        "tool_calls": calls,
    }
    scored = [score for line in lines for score in line.get("logprobs", [])]
    return _ollama_whole(body, lines[-1] | {"message": whole, "logprobs": scored})


_OLLAMA_LENGTHS = of(*({"num_predict": length} for length in (0, 1, 6, 24, 60)))
_OLLAMA_OPTIONS = st.tuples(
    st.fixed_dictionaries(
        {"seed": SEED},
        optional={
            "temperature": TEMPERATURES,
            "top_p": TOP_PS,
            "top_k": TOP_KS,
            "min_p": of(0, 0.1),
            "typical_p": of(0.3, 1),
            "repeat_penalty": of(0.8, 1, 1.3),
            "repeat_last_n": of(-1, 0, 4, 64),
            "presence_penalty": of(-1, 0, 0.8),
            "frequency_penalty": of(-0.5, 0, 0.8),
            "stop": STOPS,
        },
    ),
    _OLLAMA_LENGTHS,
).map(lambda parts: parts[0] | parts[1])
_OLLAMA_COMMON: Fields = {"model": of("tiny", "any:latest"), "options": _OLLAMA_OPTIONS, "stream": st.just(False)}
_OLLAMA_FORMATS = of("json", SCHEMA)
_OLLAMA_OPTIONAL: Fields = {"think": of(True, False, "low", "high")}
_OLLAMA_SCORES: tuple[Fields, ...] = (FREE, {"logprobs": BOOLS}, {"logprobs": st.just(True), "top_logprobs": of(0, 3)})
OLLAMA_CHAT = Dialect(
    route="/api/chat",
    alternatives=(
        ({"messages": CONVERSATIONS}, {"messages": BEGUN}),
        (_OLLAMA_COMMON,),
        (FREE, {"tools": st.just(CHAT_TOOLS)}),
        _OLLAMA_SCORES,
    ),
    optional=_OLLAMA_OPTIONAL,
    apart={"format": "is drawn where there are no tools, in the answers to prompts"},
    whole=_ollama_whole,
    streamed=_ollama_streamed,
)
OLLAMA_GENERATE = Dialect(
    route="/api/generate",
    alternatives=(
        (
            {"prompt": of("Tell me of the tiles", "Hi"), "system": of("Be brief.", "")},
            {"prompt": of("The kitchen"), "raw": st.just(True)},
        ),
        (_OLLAMA_COMMON,),
        (FREE, {"format": _OLLAMA_FORMATS}),
        _OLLAMA_SCORES,
    ),
    optional=_OLLAMA_OPTIONAL,
    apart={"suffix": "needs a model that fills in the middle", "images": "need a model that sees"},
    whole=_ollama_whole,
    streamed=_ollama_streamed,
)

DIALECTS = (CHAT, COMPLETION, NATIVE, RESPONSES, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE)
