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


_MODEL = "name of the model that answers; with --models-dir it is loaded, without, any name is taken"
_STREAMED = _honoured(
    return_progress="send chunks that say how much of the prompt is computed",
    timings_per_token="put timings on every chunk",
    sse_ping_interval="seconds of silence before a comment line; 0 or -1 is never; absent, --sse-ping-interval",
)
_SAMPLED = _honoured(
    temperature="sampling temperature; 0 takes the most likely token; absent, the model's own, else 0.8",
    top_p="keep the most likely tokens of this total probability; 1 is off; absent, the model's own, else 0.95",
    top_k="keep this many of the most likely tokens; 0 or -1 is all; absent, the model's own, else 40",
    min_p="keep tokens with this share of the highest probability; 0 is off; absent, the model's own, else 0.05",
    xtc_probability="probability of applying XTC (exclude top choices) at a step; 0 is off",
    xtc_threshold="XTC removes all but the least likely of the tokens with at least this probability; over 0.5 is off",
    typical_p="locally typical sampling: the probability mass to keep; 1 or more, or absent, is off",
    typ_p="the Web UI's name of typical_p",
    top_n_sigma="keep tokens within so many standard deviations of the highest logit; 0 or less is off",
    dynatemp_range="dynamic temperature: how far it moves up and down with the entropy; 0 is off",
    dynatemp_exponent="dynamic temperature: exponent of the normalized entropy",
    samplers="samplers in their order: a list, names with semicolons between them, or llama.cpp's letters; others are "
    "off; absent, all in llama.cpp's order",
    min_keep="tokens that typical_p, top_p, min_p and XTC leave at least",
    dry_multiplier="DRY: a token that continues a repetition loses multiplier * base ^ (length - allowed length); "
    "0 is off",
    dry_base="DRY: base of the penalty; below 1 it is 1.75, as in llama.cpp",
    dry_allowed_length="DRY: tokens of a repetition that cost nothing",
    dry_penalty_last_n="DRY: how many of the last tokens of prompt and answer are searched; -1 is all, 0 is off",
    dry_sequence_breakers="DRY: 1 to 32 texts over which no repetition reaches",
    seed="the same seed gives the same answer, alone or beside others; -1 or absent draws one",
    stop="a string or strings that end the answer; they are not sent, and not looked for in reasoning or calls",
    presence_penalty="taken off the logit of each token that the answer has already, or the last repeat_last_n",
    frequency_penalty="taken off a token's logit for each time that the answer has it, or the last repeat_last_n",
    repetition_penalty="divides the logit of each token that the answer has already, or the last repeat_last_n; "
    "1 is off; absent, the model's own",
    repeat_penalty="the name of repetition_penalty in llama.cpp",
    repeat_last_n="how many of the last tokens of prompt and answer penalties count; -1 or absent is the whole answer, "
    "0 turns penalties off",
    logit_bias="token id or text to bias, -100 to 100, as an object or llama.cpp's list of pairs; false bans",
    ignore_eos="never draw the end token, unless a grammar allows nothing else",
)
_BOUND = _honoured(
    json_schema="the answer is JSON of this schema; it parses unless max_tokens cuts it",
    grammar="the answer matches this grammar: GBNF as text, or {type, grammar} for gbnf and lark",
    regex="the whole answer matches this pattern",
    choice="the answer is one of these strings",
)
_ADAPTED = _honoured(
    lora="scales of adapters, as [{id, scale}]; those that are not named are off; absent, those of /lora-adapters",
)
_LENGTH = _honoured(
    max_tokens="most tokens of the answer; -1 or absent is up to the context, 0 computes the prompt only",
    max_completion_tokens="the same as max_tokens, and wins over it",
    n_predict="the same in llama.cpp's words, and wins over both",
)
_PLACED = _honoured(id_slot="the slot to run in, if it is idle; -1 is any")
_SERVED = _honoured(
    model=_MODEL,
    stream="send the answer as server-sent events while it is made",
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

_CALL_GRAMMAR = "`lazy` holds calls to the tools also where the model need not call, `off` strict ones only; see Tools"
_CHOSEN = "auto, none, required, a function by name, or allowed_tools; see Tools"

_TIMING = "have tiles.timing say where the time went, part by part; in a stream's last chunk"

CHAT: tuple[Parameter, ...] = (
    *_honoured(
        messages="the conversation: roles system, developer, user, assistant, tool (once: function), in any order",
        return_timing=_TIMING,
    ),
    *_SERVED,
    *_honoured(stream_options="include_usage ends a stream with a chunk that has the usage"),
    *_LENGTH,
    *_SAMPLED,
    *_honoured(response_format="text, json_object or json_schema; the answer parses unless max_tokens cuts it"),
    *_BOUND,
    *_ADAPTED,
    *_honoured(
        reasoning_effort="goes to templates with levels (gpt-oss); else tokens of reasoning: none 0, minimal 128, "
        "low 512, medium 2048, high 8192, xhigh and max any",
        thinking_budget_tokens="most tokens of reasoning, over reasoning_effort; a quarter of max_tokens stays for the "
        "answer; -1 is no bound",
        n="how many answers to give, 1 to 8; the prompt is computed once",
        logprobs="say how likely the answer's tokens were; those of the reasoning are left out",
        top_logprobs="how many of the most likely tokens to name at each position, 0 to 20; needs logprobs",
        tools="tools that the model may call: functions and custom ones; others are left out, see Tools",
        tool_choice=_CHOSEN,
        parallel_tool_calls="`false` ends the answer with its first call",
        tool_call_grammar=_CALL_GRAMMAR,
        chat_template_kwargs="variables for the chat template, such as enable_thinking",
        reasoning_control="without effect: POST /v1/chat/completions/control can always end the reasoning",
        reasoning_format="`none` leaves the reasoning in the content; the others put it into reasoning_content",
        continue_final_message="go on with a last message of the assistant; a stream then has only what is new",
        add_generation_prompt="end the prompt with what begins an answer; true does not go with continue_final_message",
    ),
    *_STREAMED,
    *_PLACED,
    *_honoured(
        input="memory mode: the user's words; see docs/memory.md",
        chat_start="memory mode: true begins a turn of the user's, false is a relay; absent, true without python_code",
        python_code="memory mode: the code of the last answer, to be run on the notes",
    ),
    *_WITHOUT_EFFECT,
    _refused("n_probs", "is not supported yet", 0),
    _refused("service_tier", "other than auto and default does not exist here", "auto", "default"),
    _refused("modalities", "other than text are not supported", ["text"]),
    _refused("audio", "is not supported"),
    *_ignored("changes nothing in the answer", "prediction"),
    *_ignored("this server runs no tools", "web_search_options"),
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
    *_honoured(
        prompt=_PROMPT,
        suffix="what follows the answer; for models with fill-in-the-middle tokens",
        echo="repeat the prompt before the answer; with logprobs, its tokens have theirs, and so has an end token",
    ),
    *_SERVED,
    *_honoured(
        stream_options="include_usage moves the usage of a stream to a chunk of its own",
        n="how many answers to give to every prompt, each with a seed of its own",
        logprobs="how many alternatives to each token to name, 0 to 20; absent, no probabilities at all",
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
        response_fields="fields to answer with; a/b takes b out of a; empty, all",
        n_probs="how many of the most likely tokens to name at each position, 0 to 100",
        post_sampling_probs="give probabilities after all samplers, as prob and top_probs",
        return_tokens="give the token ids of the answer, without the end token",
    ),
    *_WITHOUT_EFFECT,
    *_NO_REASONING,
    _refused("n_cmpl", "is not supported; a prompt can stand in the list several times", 1),
    _refused("image_data", "is not supported; images go into `multimodal_data` of a prompt", []),
    *_TEXT_ONLY,
)

NATIVE: tuple[Parameter, ...] = (*_honoured(prompt=_PROMPT), *_NATIVE)

INFILL: tuple[Parameter, ...] = (
    *_honoured(
        input_prefix="text before the gap",
        input_suffix="text after the gap",
        prompt="more text before the gap, after input_prefix",
    ),
    *_NATIVE,
    _refused("input_extra", "is not supported yet", []),
)

TOKENIZE: tuple[Parameter, ...] = (
    *_honoured(
        content="the text: a string, or strings and token ids in a list",
        add_special="add the tokens that the model wants before a text",
        with_pieces="give the text of every token too, or its bytes where they are part of a character",
        model=_MODEL,
    ),
    _refused("parse_special", "of false is not supported: control tokens in a text are always taken as such", True),
)

DETOKENIZE: tuple[Parameter, ...] = _honoured(tokens="token ids of the text", model=_MODEL)

_VECTORS = _honoured(
    pooling="mean, cls, last or max, over the last hidden states; absent, the model's own way, else the mean",
    prompt_name="which of the model's prompts stands before each text, such as query; absent, its default, mostly none",
    truncate="cut texts that are too long at their end; absent or false, they are a 400",
    embd_normalize="2 makes the length of each vector 1; -1 leaves it as it is",
)
_INPUT = (
    "a string, token ids, both mixed, {content} of text parts; a list of strings or of lists is several, up to 2,048"
)

EMBEDDINGS: tuple[Parameter, ...] = (
    *_honoured(
        input=_INPUT,
        model=_MODEL,
        encoding_format="float for numbers, or base64 of little-endian float32",
        dimensions="size that vectors are cut to, before they get their length; more than the model has is a 400",
    ),
    *_VECTORS,
    *_ignored("changes nothing in the answer", "user"),
)

EMBEDDING: tuple[Parameter, ...] = (
    *_honoured(content=_INPUT, input="the same as content, and wins over it", model=_MODEL),
    *_VECTORS,
)

_QUESTIONS = "1 to 400 questions, each answered by itself; what they share is computed once"
DECISIONS: tuple[Parameter, ...] = (
    *_honoured(
        input="what the questions are about: text, or items: messages, calls and outputs, as a transcript, with images",
        questions=f"{_QUESTIONS}: predicates, choices and scores",
        model=_MODEL,
    ),
    *_ignored("changes nothing in the answer", "prompt_cache_key", "prompt_cache_options", "safety_identifier"),
)

SYSTEM_ONE: tuple[Parameter, ...] = (
    *_honoured(
        state="what the questions are about: text, or any JSON, which is read as text",
        questions=f"{_QUESTIONS}: choices, scores and nouls, by an id of yours",
        model=_MODEL,
    ),
    *_honoured(
        images="up to 8 in base64, before the state, as are images in its messages; a 501 if the model sees none"
    ),
)

RERANK: tuple[Parameter, ...] = (
    *_honoured(
        query="what is looked for",
        documents="texts, or objects with text: up to 2,048",
        texts="TEI's name of documents; the answer then is a list, as TEI has it",
        model=_MODEL,
        top_n="how many to give, the best first; absent, all",
        return_documents="give the texts too",
        return_text="TEI's name of return_documents",
        raw_scores="log-odds of any size instead of 0 to 1",
        instruction="what makes a document relevant, in words; for models that write and Qwen3-Reranker",
        truncate="cut documents that are too long at their end; absent or false, they are a 400",
    ),
    *_ignored("changes nothing in the answer", "user", "priority", "return_embeddings"),
    *_ignored(
        "documents are read whole", "max_chunks_per_doc", "max_tokens_per_doc", "rank_fields", "truncation_direction"
    ),
)

_NOTES = {
    parameter.name: parameter.note for parameter in (*_SERVED, *_LENGTH, *_SAMPLED)
}  # for what is alike elsewhere

MESSAGES: tuple[Parameter, ...] = (
    *_honoured(
        messages="the conversation: text, thinking, tool_use and tool_result blocks; a last message of the assistant "
        "is continued",
        system="system prompt: text or text blocks; Claude Code's changing billing line is dropped, so that prompts "
        "share a prefix",
        model=_MODEL,
        max_tokens=_NOTES["max_tokens"],
        stream=_NOTES["stream"],
        stop_sequences="strings that end the answer; stop_sequence then says which one it was",
        temperature=_NOTES["temperature"],
        top_k=_NOTES["top_k"],
        top_p=_NOTES["top_p"],
        seed="this server's own: the same seed gives the same answer, alone or beside others",
        tools="tools of the client's, with input_schema; others are left out, see Tools",
        tool_choice="auto, none, any or tool; disable_parallel_tool_use ends the answer with its first call",
        tool_call_grammar=_CALL_GRAMMAR,
        thinking="`enabled` and `disabled` turn reasoning on and off, others leave it open; budget_tokens bounds it",
        output_config="format: JSON of a schema, which is enforced",
        output_format="the old name of output_config.format",
        return_timing=_TIMING,
    ),
    *_ignored(
        "changes nothing in the answer",
        *("metadata", "cache_control", "context_management", "betas", "inference_geo", "diagnostics"),
        *("user_profile_id", "workspace_id"),
    ),
    *_ignored("changes nothing in the answer", "speed", harmless=("standard",)),
    *_ignored("this server runs no tools", "container", "mcp_servers"),
    _refused("service_tier", "other than auto and standard_only does not exist here", "auto", "standard_only"),
)

RESPONSES: tuple[Parameter, ...] = (
    *_honoured(
        input="the conversation: text, or items: messages, function calls and their outputs, reasoning, summaries",
        instructions="system prompt; it is not taken over by a next response",
        model=_MODEL,
        stream=_NOTES["stream"],
        max_output_tokens=_NOTES["max_tokens"],
        temperature=_NOTES["temperature"],
        top_p=_NOTES["top_p"],
        seed="this server's own: the same seed gives the same answer, alone or beside others",
        tools="tools that the model may call: functions, also in namespaces, and custom ones; others are left out, see "
        "Tools",
        tool_choice=_CHOSEN,
        parallel_tool_calls="`false` ends the answer with its first call",
        tool_call_grammar=_CALL_GRAMMAR,
        reasoning="effort none turns reasoning off, any other on and bounds it; with summary it comes as a summary",
        text="format of the answer: text, json_object or json_schema; the latter two are enforced",
        metadata="up to 1,024 strings by name that are stored with the response",
        store="store the conversation on this machine, for previous_response_id; with --store off it never is",
        previous_response_id="id of a stored response whose conversation goes on",
        truncation="`auto` or `disabled`; nothing is dropped either way: what does not fit is a 400",
        presence_penalty="taken off the logit of each token that the answer has already",
        frequency_penalty="taken off a token's logit for each time that the answer has it",
        return_progress="send response.in_progress with prompt_progress: how much of the prompt is computed",
        timings_per_token="put timings on every event of a token",
        include="message.output_text.logprobs for how likely tokens were; reasoning.encrypted_content for reasoning to "
        "give back; any other is without effect",
        top_logprobs="how many of the most likely tokens to name at each position, 0 to 20; needs logprobs in include",
    ),
    *_ignored("changes nothing in the words", "text.verbosity"),
    *_ignored("this server runs no tools", "max_tool_calls"),
    *_ignored(
        "changes nothing in the answer",
        *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
        *("stream_options", "access_programs", "background_options"),
    ),
    _refused("background", "is not supported", False),
    _refused("conversation", "is not supported; previous_response_id is"),
    _refused("prompt", "refers to what OpenAI keeps, which is not here"),
    *_ignored("nothing is summarized by itself, only where compaction is asked for", "context_management"),
    _refused("moderation", "is not supported"),
    _refused("image", "is not supported"),
    _refused("service_tier", "other than auto and default does not exist here", "auto", "default"),
)

_OLLAMA_WITHOUT_EFFECT = (
    *_ignored("models stay as --sleep-idle-seconds has it, but for 0 in a request without words", "keep_alive"),
    *_ignored("changes nothing in the answer", "shift", "truncate", harmless=(True,)),
)
_OLLAMA_GENERATING = (
    *_honoured(
        model="name of the model, with or without :latest; with --models-dir it is loaded, without, any name is taken",
        stream="lines of JSON while the answer is made; absent, true",
        options="how tokens are drawn, and where the answer ends",
        format="`json`, or a JSON schema; the answer parses unless num_predict cuts it",
        think="false turns reasoning off, true on; low, medium, high and the like bound it too",
        logprobs="say how likely the answer's tokens were; those of the reasoning are left out",
        top_logprobs="how many of the most likely tokens to name at each position, 0 to 20; needs logprobs",
    ),
    *_OLLAMA_WITHOUT_EFFECT,
)

OLLAMA_CHAT: tuple[Parameter, ...] = (
    *_honoured(
        messages="the conversation; without any, the model is loaded or, with keep_alive 0, unloaded",
        tools="functions that the model may call, see Tools",
    ),
    *_OLLAMA_GENERATING,
)

OLLAMA_GENERATE: tuple[Parameter, ...] = (
    *_honoured(
        prompt="what to answer; without it, the model is loaded or, with keep_alive 0, unloaded",
        system="system prompt",
        raw="continue the prompt as it is, without the chat template",
        suffix="what follows the answer; for models with fill-in-the-middle tokens",
        images="in base64, which come before the text, for a model that sees",
    ),
    *_OLLAMA_GENERATING,
    *_ignored("is what other servers gave back; conversations go to /api/chat", "context"),
    _refused("template", "is the model's own and cannot be replaced"),
)

_OLLAMA_EMBEDDING = (
    *_honoured(model="name of the model, with or without :latest"),
    *_ignored("models stay as --sleep-idle-seconds has it", "keep_alive"),
    *_ignored("changes nothing in vectors", "options"),
)
OLLAMA_EMBED: tuple[Parameter, ...] = (
    *_honoured(
        input="a text or several, up to 2,048 of them",
        dimensions="size that vectors are cut to; more than the model has is a 400",
        truncate="cut texts that are too long at their end; false makes them a 400",
    ),
    *_OLLAMA_EMBEDDING,
)
OLLAMA_EMBEDDINGS: tuple[Parameter, ...] = (*_honoured(prompt="the text"), *_OLLAMA_EMBEDDING)

# By the first route of the dialect.
REGISTRIES: dict[str, tuple[Parameter, ...]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/completion": NATIVE,
    "/infill": INFILL,
    "/v1/embeddings": EMBEDDINGS,
    "/embedding": EMBEDDING,
    "/v1/decisions": DECISIONS,
    "/v1/systemone": SYSTEM_ONE,
    "/v1/rerank": RERANK,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/api/chat": OLLAMA_CHAT,
    "/api/generate": OLLAMA_GENERATE,
    "/api/embed": OLLAMA_EMBED,
    "/api/embeddings": OLLAMA_EMBEDDINGS,
}


def descriptions(parameters: tuple[Parameter, ...]) -> dict[str, str]:
    """Say what each parameter means, by its name, as the OpenAPI document has it."""
    return {p.name: p.note if p.treatment == "honoured" else f"{p.name} {p.note}" for p in parameters}


def check(parameters: tuple[Parameter, ...], values: Mapping[str, Any]) -> None:
    """Raise UnsupportedParameter for the first refused parameter that would change something."""
    for parameter in parameters:
        if parameter.treatment != "refused" or parameter.name not in values:
            continue
        if not parameter.is_harmless(values[parameter.name]):
            raise UnsupportedParameter(parameter.name, parameter.note)


def ignored(parameters: tuple[Parameter, ...], values: Mapping[str, Any], inner: Iterable[str] = ()) -> str:
    """Name what was given and has no effect, for the header: ignored parameters, unknown ones, and unknown fields."""
    names = {*_without_effect(parameters, values), *inner}
    return ", ".join(sorted(name for name in names if _NAME.fullmatch(name))[:_MOST_NAMES])


def is_nothing(value: Any) -> bool:
    """Whether a value asks for nothing, whatever it is the value of: false, or empty."""
    if isinstance(value, dict | list):
        return all(map(is_nothing, value.values() if isinstance(value, dict) else value))
    return value is None or value is False or value == ""


def _without_effect(parameters: tuple[Parameter, ...], values: Mapping[str, Any]) -> Iterator[str]:
    by_name = {parameter.name: parameter for parameter in parameters}
    for name, value in values.items():
        parameter = by_name.get(name)
        if parameter is not None and parameter.treatment != "ignored":
            continue
        if not (parameter.is_harmless if parameter and parameter.harmless else is_nothing)(value):
            yield name
