"""Tells the notation of a model's calls and reasoning by its chat template and its tokens, where mlx-lm does not."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from mlx_lm.tokenizer_utils import _infer_tool_parser

# Notations of calls by a text that only their templates have, although mlx-lm may take some for another's.
_OWN_CALLS = {
    "]<]minimax[>[": "minimax_m3",
    "<seed:tool_call>": "seed_oss",
    "<|START_ACTION|>": "cohere",
    "<|tools_prefix|>": "apertus",
    "<｜tool▁calls▁begin｜>": "deepseek",  # noqa: RUF001
    "｜DSML｜": "dsml",  # noqa: RUF001
    "<TOOLCALL>": "nemotron",
    "<|tool_call:begin|>": "solar",
    "<|function_call|>": "gigachat",
    "'function call'": "gigachat_role",
    "':opensource'": "hunyuan_3",
    "<|channel|>": "harmony",
}
# The same for texts that other templates may have too: where mlx-lm sees no notation.
_OTHER_CALLS = {
    "<tool_calls>": "tool_calls",
    "<tool_call>": "json_tools",
    "<|tool_call|>": "granite",
    "<function=": "functionary",
    "directly-answer": "command_r",
}
# Tokens that only calls have, of models whose template does not show any: Phi-4 mini.
_CALL_TOKENS = {("<|tool_call|>", "<|/tool_call|>"): "phi4", ("<|tool_call|>",): "granite"}

# The variables of templates that list tools, or what Llama's says of them.
_TOOLS = re.compile(r'\b(?:xml_|python_)?(?:tools|functions)\b|"parameters": dictionary')

# What opens and closes reasoning, in templates that have the latter; and in those that have both.
_OWN_REASONING = (
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<think:opensource>", "</think:opensource>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
_OTHER_REASONING = (("<think>", "</think>"),)

# Markers around the answer that are no part of it, wherever they stand, and what tells that a model writes them.
_STRUCTURAL = {
    "<|START_RESPONSE|>": "<|START_RESPONSE|>",
    "<|END_RESPONSE|>": "<|START_RESPONSE|>",
    "<|START_TEXT|>": "<|START_TEXT|>",
    "<|END_TEXT|>": "<|START_TEXT|>",
    "[END FINAL RESPONSE]": "[BEGIN FINAL RESPONSE]",
}

# Answers of several messages, each with a marker that says what it is: the states of an answer, and the markers to the
# next. What stands between two messages is not shown.
_SOLAR_MESSAGE = (("<|think|>", "reasoning"), ("<|content|>", "normal"), ("<|tool_calls|>", "tool"))
_SOLAR = {
    "normal": (*_SOLAR_MESSAGE, ("<|end|>", "between")),
    "reasoning": (("<|end|>", "between"),),
    "between": _SOLAR_MESSAGE,
}

# Tags around a whole answer, by texts of the templates of models that write them.
_FRAMES = {
    ("<answer>", "</answer>"): ("<answer>", "</answer>"),
    ("<response></response>",): ("<response>", "</response>"),
    ("<response>\n",): ("<response>", "</response>"),
    ("<response>\\n",): ("<response>", "</response>"),
}


def template_text(tokenizer: Any) -> str:
    """Give the chat template with which tools are rendered; nothing where there is none."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("tool_use") or template.get("default") or next(iter(template.values()), "")
    return template if isinstance(template, str) else ""


def call_parser(tokenizer: Any) -> tuple[str | None, ModuleType | None]:
    """Give the name of the notation of a tokenizer's calls (None: it has none), and mlx-lm's parser if it has one."""
    template = template_text(tokenizer)
    if own := next((name for text, name in _OWN_CALLS.items() if text in template), None):
        return own, None
    if module := _mlx_parser(tokenizer):
        return module.__name__.rpartition(".")[2], module
    if other := next((name for text, name in _OTHER_CALLS.items() if text in template), None):
        return other, None
    tokens = _added_tokens(tokenizer)
    if by_tokens := next((name for texts, name in _CALL_TOKENS.items() if tokens.issuperset(texts)), None):
        return by_tokens, None
    return ("json_tools" if template and not takes_tools(template) else None), None


def takes_tools(template: str) -> bool:
    """Whether a chat template can tell the model of tools. To others they are told in Hermes' notation, as text."""
    return _TOOLS.search(template) is not None


def _mlx_parser(tokenizer: Any) -> ModuleType | None:
    """Give mlx-lm's parser. For a list of templates it chooses none by itself."""
    if tokenizer.tool_parser:
        return sys.modules[tokenizer.tool_parser.__module__]
    if not isinstance(tokenizer.chat_template, Mapping):
        return None
    name = _infer_tool_parser(SimpleNamespace(chat_template=template_text(tokenizer), get_vocab=tokenizer.get_vocab))
    return importlib.import_module(f"mlx_lm.tool_parsers.{name}") if name else None


def reasoning_markers(tokenizer: Any) -> tuple[str | None, str | None]:
    """Give what opens and closes a model's reasoning."""
    template, tokens = template_text(tokenizer), _added_tokens(tokenizer)
    for pair in _OWN_REASONING:
        if pair[1] in template or tokens.issuperset(pair):
            return pair
    if tokenizer.think_start:
        return tokenizer.think_start, tokenizer.think_end
    return next((pair for pair in _OTHER_REASONING if all(marker in template for marker in pair)), (None, None))


def structural_markers(tokenizer: Any) -> Iterator[str]:
    """Yield the markers that are shown to nobody, wherever they stand."""
    yield from tokenizer.structural_markers or ()
    template, tokens = template_text(tokenizer), _added_tokens(tokenizer)
    yield from (marker for marker, clue in _STRUCTURAL.items() if clue in template or clue in tokens)


def transitions(tokenizer: Any) -> tuple[Mapping[str, Sequence[tuple[str, str]]], str | None]:
    """Give the markers that lead from one state of an answer to another, and its first state; mostly there are none."""
    if "<|tool_call:begin|>" in template_text(tokenizer):
        return _SOLAR, None
    return tokenizer.response_transitions, tokenizer.response_initial_state


def answer_frame(tokenizer: Any) -> tuple[str, str] | None:
    """Give the tags that a model puts around its answer."""
    template, tokens = template_text(tokenizer), _added_tokens(tokenizer)
    return next(
        (
            tags
            for texts, tags in _FRAMES.items()
            if all(text in template for text in texts) or tokens.issuperset(texts)
        ),
        None,
    )


def _added_tokens(tokenizer: Any) -> set[str]:
    return {str(token.content) for token in tokenizer.added_tokens_decoder.values()}
