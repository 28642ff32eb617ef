"""The registry of parameters: what each dialect knows, and whether it is honoured, ignored or refused.

Validation, the X-Tiles-Ignored header and the table in docs/compatibility.md come from here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.services.errors import UnsupportedParameter

_NAME = re.compile(r"[A-Za-z0-9_.$-]{1,96}")
_MOST_NAMES = 32


Treatment = Literal["honoured", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a dialect. One that is not honoured may still have values that ask for nothing, `harmless`."""

    name: str
    treatment: Treatment
    note: str
    harmless: tuple[Any, ...] = ()

    def is_harmless(self, value: Any) -> bool:
        """Whether a value asks for what happens anyway."""
        return any(type(value) is type(harmless) and value == harmless for harmless in self.harmless)


def _honoured(**notes: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "honoured", note) for name, note in notes.items())


def _ignored(note: str, *names: str, harmless: tuple[Any, ...] = ()) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "ignored", note, harmless) for name in names)


def _refused(name: str, note: str, *harmless: Any) -> Parameter:
    return Parameter(name, "refused", note, harmless)


_MODEL = "any name is answered by the model that is served; with --models-dir, the model that is to answer"
_STREAMED = _honoured(
    return_progress="chunks that say how far the prompt is",
    timings_per_token="timings on every chunk",
    sse_ping_interval="seconds of silence before a comment line",
)
_SAMPLED = _honoured(
    temperature="0 takes the most likely token",
    top_p="0 to 1",
    top_k="0 or -1 keeps all",
    min_p="0 to 1",
    xtc_probability="how often all but the least likely of the tokens over the threshold are left out; 0 is never",
    xtc_threshold="over 0.5 is never",
    typical_p="leaves the tokens that surprise about as much as is to be expected, with that mass; 1 or more is off",
    typ_p="the Web UI's name of typical_p",
    top_n_sigma="leaves what is within so many standard deviations of the highest logit; 0 or less is off",
    dynatemp_range="the temperature moves that far up and down with the entropy; 0 is off",
    dynatemp_exponent="how the entropy moves it",
    samplers="their order: a list, names with semicolons between them, or llama.cpp's letters; others are off",
    min_keep="how many tokens typical_p, top_p, min_p and XTC leave at least",
    dry_multiplier="what would go on with a repetition loses multiplier * base ^ (length - allowed length); 0 is off",
    dry_base="below 1 it is 1.75, as in llama.cpp",
    dry_allowed_length="tokens of a repetition that cost nothing",
    dry_penalty_last_n="the last tokens of prompt and answer in which it looks; 64 where absent, -1 is all, 0 is off",
    dry_sequence_breakers="1 to 32 texts over which no repetition reaches",
    seed="same seed, same answer, alone or beside others",
    stop="a string or a list; looked for in the answer, not in thoughts or calls, and never sent",
    presence_penalty="counts the whole answer, but for repeat_last_n",
    frequency_penalty="counts the whole answer, but for repeat_last_n",
    repetition_penalty="counts the whole answer, but for repeat_last_n; 1 is off",
    repeat_penalty="llama.cpp's name of repetition_penalty",
    repeat_last_n="the last tokens of prompt and answer that penalties count; -1 or absent, the whole answer; 0 is off",
    logit_bias="token id or text to bias, -100 to 100, as an object or llama.cpp's list of pairs; false bans",
    ignore_eos="never draw the end token, but where a grammar lets nothing else come",
)
_BOUND = _honoured(
    json_schema="the answer is JSON of this schema; it always parses, max_tokens permitting",
    grammar="GBNF as text; {type, grammar} for gbnf and lark",
    regex="the whole answer matches it",
    choice="the answer is one of these strings",
)
_ADAPTED = _honoured(
    lora="[{id, scale}] of the adapters of --lora; those that are not named count for nothing; absent, the usual ones",
)
_LENGTH = _honoured(
    max_tokens="-1 or absent is up to the context, 0 computes the prompt only",
    max_completion_tokens="wins over max_tokens",
    n_predict="llama.cpp's name; wins over both",
)
_PLACED = _honoured(id_slot="the slot that it takes, if that is idle; -1 is any")
_SERVED = _honoured(
    model=_MODEL,
    stream="server-sent events",
)
_WITHOUT_EFFECT = (
    *_ignored(
        "changes nothing in the answer",
        *("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("include", "backend_sampling", "verbose"),
    ),
    *_ignored("changes nothing in the answer", "verbosity", harmless=("medium",)),
    *_ignored("every prompt is cached", "cache_prompt", harmless=(True,)),
    *_ignored("is not supported", "n_keep", "n_discard", "n_indent", harmless=(0,)),
    *_ignored("is not supported", "t_max_predict_ms", harmless=(0, -1)),
    *_ignored("goes with mirostat", "mirostat_tau", harmless=(5, 5.0)),
    *_ignored("goes with mirostat", "mirostat_eta", harmless=(0.1,)),
    *_ignored("goes with adaptive_target", "adaptive_decay", harmless=(0.9,)),
    _refused("mirostat", "is not supported; 0 is off", 0, 0.0),
    _refused("adaptive_target", "is not supported; a negative one is off", -1.0, -0.01),
)

_NO_REASONING = _ignored("the reasoning stands in the text", "reasoning_control")

_CHOSEN = "auto, none, required, a function by name, allowed_tools; see Tools"

CHAT: tuple[Parameter, ...] = (
    *_honoured(
        messages="roles system, developer, user, assistant, tool (of old: function), in any order; text parts are lines"
    ),
    *_SERVED,
    *_honoured(stream_options="include_usage"),
    *_LENGTH,
    *_SAMPLED,
    *_honoured(response_format="text, json_object and json_schema; the answer always parses, max_tokens permitting"),
    *_BOUND,
    *_ADAPTED,
    *_honoured(
        reasoning_effort="none 0, minimal 128, low 512, medium 2048, high 8192 tokens; xhigh and max: no bound",
        thinking_budget_tokens="wins over reasoning_effort; leaves a quarter of max_tokens for the answer; -1 is none",
        n="1 to 8 answers; the prompt is computed once",
        logprobs="of the answer's tokens, not of the reasoning",
        top_logprobs="0 to 20",
        tools="functions and custom ones go to the chat template, calls are parsed; others are left out, see Tools",
        tool_choice=_CHOSEN,
        parallel_tool_calls="false ends the answer with its first call",
        chat_template_kwargs="go to the chat template",
        reasoning_control="what it asks for is always so: POST /v1/chat/completions/control ends the reasoning",
        reasoning_format="none leaves the reasoning in the content; auto and deepseek take it out",
        continue_final_message="go on with a last message of the assistant; a stream then says only what is new",
        add_generation_prompt="false leaves out what begins an answer; it goes with continue_final_message too",
    ),
    *_STREAMED,
    *_PLACED,
    *_honoured(
        input="memory mode: the user's words; see docs/memory.md",
        chat_start="memory mode: true begins a turn of the user's, false is a relay; absent, it is true without code",
        python_code="memory mode: the code of the last answer, to be run on the notes",
    ),
    *_WITHOUT_EFFECT,
    _refused("n_probs", "is not supported yet", 0),
    _refused("service_tier", "other than auto and default does not exist here", "auto", "default"),
    _refused("modalities", "other than text are not supported", ["text"]),
    _refused("audio", "is not supported"),
    *_ignored("changes nothing in the answer", "prediction"),
    *_ignored("there are no tools on this side", "web_search_options"),
    _refused("functions", "is the old name of tools; use tools", []),
    _refused("function_call", "is the old name of tool_choice; use tool_choice", "auto", "none"),
)

_TEXT_ONLY = (
    _refused(
        "response_format",
        "other than text belongs to chat completions; use json_schema, grammar, regex or choice",
        {"type": "text"},
    ),
)
_PROMPT = "a string, token ids, both mixed, or {prompt_string}; a list of strings or of lists is several prompts"

COMPLETION: tuple[Parameter, ...] = (
    *_honoured(prompt=_PROMPT, suffix="for models with fill-in-the-middle tokens", echo="the prompt before the answer"),
    *_SERVED,
    *_honoured(
        stream_options="include_usage moves the usage to a chunk of its own",
        n="answers to every prompt, each with a seed of its own",
        logprobs="alternatives to each token, 0 to 20; OpenAI's lists and llama.cpp's content",
    ),
    *_LENGTH,
    *_SAMPLED,
    *_BOUND,
    *_ADAPTED,
    *_STREAMED,
    *_PLACED,
    *_WITHOUT_EFFECT,
    *_NO_REASONING,
    _refused("best_of", "is not supported; n gives several answers", 1),
    _refused("n_probs", "is llama.cpp's; use logprobs", 0),
    _refused("return_tokens", "is llama.cpp's; POST /completion has it", False),
    _refused("service_tier", "other than auto and default does not exist here", "auto", "default"),
    *_TEXT_ONLY,
)

_NATIVE = (
    *_SERVED,
    *_LENGTH,
    *_SAMPLED,
    *_BOUND,
    *_ADAPTED,
    *_STREAMED,
    *_PLACED,
    *_honoured(
        response_fields="names of fields to answer with; a/b takes b out of a",
        n_probs="how many of the most likely tokens are told with each token, before sampling; 0 to 100",
        post_sampling_probs="they are of what the samplers leave, as prob and top_probs",
        return_tokens="the ids of the answer's tokens, without the end token",
    ),
    *_WITHOUT_EFFECT,
    *_NO_REASONING,
    _refused("n_cmpl", "is not supported; a prompt can stand in the list several times", 1),
    _refused("image_data", "is not supported: this model reads text only", []),
    *_TEXT_ONLY,
)

NATIVE: tuple[Parameter, ...] = (*_honoured(prompt=_PROMPT), *_NATIVE)

INFILL: tuple[Parameter, ...] = (
    *_honoured(
        input_prefix="what stands before the answer",
        input_suffix="what stands after it",
        prompt="is put after input_prefix",
    ),
    *_NATIVE,
    _refused("input_extra", "is not supported yet", []),
)

TOKENIZE: tuple[Parameter, ...] = (
    *_honoured(
        content="a string, or strings and token ids in a list",
        add_special="what the model wants before a text",
        with_pieces="the text of every token, or its bytes where they are a part of a character",
        model=_MODEL,
    ),
    _refused("parse_special", "of false is not supported: control tokens in a text are always taken as such", True),
)

DETOKENIZE: tuple[Parameter, ...] = _honoured(tokens="token ids", model=_MODEL)

_VECTORS = _honoured(
    pooling="mean or last, over the last hidden states; absent, it is the model's own way, else the mean",
    embd_normalize="2, which is absent too, makes the length 1; -1 leaves the vectors as they are",
)
_INPUT = (
    "a string, token ids, both mixed, {content} of text parts; a list of strings or of lists is several, up to 2,048"
)

EMBEDDINGS: tuple[Parameter, ...] = (
    *_honoured(
        input=_INPUT,
        model=_MODEL,
        encoding_format="float, or base64 of little-endian float32",
        dimensions="the model's own number; 400 for another: its vectors cannot be cut",
    ),
    *_VECTORS,
    *_ignored("changes nothing in the answer", "user"),
)

EMBEDDING: tuple[Parameter, ...] = (
    *_honoured(content=_INPUT, input="the same as content", model=_MODEL),
    *_VECTORS,
)

# By the first route of the dialect.
_LOCAL = "changes nothing in the answer"

MESSAGES: tuple[Parameter, ...] = (
    *_honoured(
        messages="text, thinking, tool_use and tool_result blocks; a last message of the assistant is continued",
        system="text or text blocks; Claude Code's changing billing line is dropped, so that prompts share a prefix",
        model=_MODEL,
        max_tokens="-1 or absent is up to the context, 0 computes the prompt only",
        stream="server-sent events",
        stop_sequences="stop_reason stop_sequence, and which one it was",
        temperature="0 takes the most likely token",
        top_k="0 or -1 keeps all",
        top_p="0 to 1",
        seed="ours: same seed, same answer",
        tools="of one's own, with input_schema; others are left out, see Tools",
        tool_choice="auto, none, any and tool; disable_parallel_tool_use ends the answer with its first call",
        thinking="enabled and disabled turn it on and off, others are the model's own way; budget_tokens bounds it",
        output_config="format is enforced: JSON of a schema",
        output_format="of old: output_config.format",
    ),
    *_ignored("a model here has one effort", "output_config.effort"),
    *_ignored(
        _LOCAL,
        *("metadata", "cache_control", "context_management", "betas", "inference_geo", "diagnostics"),
        *("user_profile_id", "workspace_id"),
    ),
    *_ignored(_LOCAL, "speed", harmless=("standard",)),
    *_ignored("there are no tools on this side", "container", "mcp_servers"),
    _refused("service_tier", "other than auto and standard_only does not exist here", "auto", "standard_only"),
)

RESPONSES: tuple[Parameter, ...] = (
    *_honoured(
        input="text or items: messages, function calls and their outputs, reasoning",
        instructions="come first, as a system message",
        model=_MODEL,
        stream="server-sent events",
        max_output_tokens="-1 or absent is up to the context, 0 computes the prompt only",
        temperature="0 takes the most likely token",
        top_p="0 to 1",
        seed="ours: same seed, same answer",
        tools="functions, also in namespaces, and custom ones; others are left out, see Tools",
        tool_choice=_CHOSEN,
        parallel_tool_calls="false ends the answer with its first call",
        reasoning="effort none turns thinking off, any other on and bounds it; with summary the thoughts are a summary",
        text="format text, json_object and json_schema; the latter two are enforced",
        metadata="is kept with the response",
        store="keeps the conversation on this machine, for previous_response_id; --store off never does",
        previous_response_id="goes on with a stored conversation",
        truncation="auto and disabled; nothing is dropped either way: what does not fit is a 400",
        presence_penalty="counts the whole answer",
        frequency_penalty="counts the whole answer",
        return_progress="response.in_progress says how far the prompt is, in prompt_progress",
        timings_per_token="timings on every event of a token",
        include="message.output_text.logprobs; what else is not there is left out",
        top_logprobs="0 to 20, with logprobs in include",
    ),
    *_ignored("changes nothing in the words", "text.verbosity"),
    *_ignored("there are no tools on this side", "max_tool_calls"),
    *_ignored(
        _LOCAL,
        *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
        *("stream_options", "access_programs", "background_options"),
    ),
    _refused("background", "is not supported", False),
    _refused("conversation", "is not supported; previous_response_id is"),
    _refused("prompt", "refers to what OpenAI keeps, which is not here"),
    *_ignored("nothing is dropped or summed up: what does not fit is a 400", "context_management"),
    _refused("moderation", "is not supported"),
    _refused("image", "is not supported"),
    _refused("service_tier", "other than auto and default does not exist here", "auto", "default"),
)

REGISTRIES: dict[str, tuple[Parameter, ...]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/completion": NATIVE,
    "/infill": INFILL,
    "/v1/embeddings": EMBEDDINGS,
    "/embedding": EMBEDDING,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}


def check(parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> None:
    """Raise UnsupportedParameter for the first refused parameter that would change something."""
    for parameter in parameters:
        if parameter.treatment != "refused" or parameter.name not in given:
            continue
        if not parameter.is_harmless(given[parameter.name]):
            raise UnsupportedParameter(parameter.name, parameter.note)


def ignored(parameters: tuple[Parameter, ...], given: Mapping[str, Any], inner: Iterable[str] = ()) -> str:
    """Name what was given and has no effect, for the header: ignored parameters, unknown ones, and unknown fields."""
    names = {*_without_effect(parameters, given), *inner}
    return ", ".join(sorted(name for name in names if _NAME.fullmatch(name))[:_MOST_NAMES])


def is_nothing(value: Any) -> bool:
    """Whether a value asks for nothing, whatever it is the value of: false, or empty."""
    if isinstance(value, dict | list):
        return all(map(is_nothing, value.values() if isinstance(value, dict) else value))
    return value is None or value is False or value == ""


def _without_effect(parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> Iterator[str]:
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is not None and parameter.treatment != "ignored":
            continue
        if not (parameter.is_harmless if parameter and parameter.harmless else is_nothing)(value):
            yield name
