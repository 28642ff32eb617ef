"""Answers in OpenAI's harmony format, a tokenizer that has its control tokens, and a template in gpt-oss' manner."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx_lm.tokenizer_utils
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from app.services.engine.output import harmony
from app.services.engine.output.message_parser import MessageParser
from tests.engine.parsing import merge_parts

ARGUMENTS = '{"a": "x {é} \\"q\\" <|end|> 🙂", "b": 2}'
CALL_BEHIND_CHANNEL = (
    f"<|channel|>commentary to=functions.add <|constrain|>json<|message|>{ARGUMENTS}"  # as gpt-oss writes it mostly
)
CALL_BEHIND_ROLE = f" to=functions.add<|channel|>commentary json<|message|>{ARGUMENTS}"  # as its template does
THOUGHT = "<|channel|>analysis<|message|>They greet.<|end|><|start|>assistant"

# Every newline is spelled out, so that it renders the same whether blocks are trimmed or not.
TEMPLATE = """\
{{- "<|start|>system<|message|>Reasoning: " + (reasoning_effort or "medium") + "<|end|>" -}}
{%- set rest = messages -%}
{%- if messages and messages[0].role == "system" -%}
{%- set rest = messages[1:] -%}
{%- endif -%}
{%- if messages and messages[0].role == "system" or tools -%}
{{- "<|start|>developer<|message|>" -}}
{%- if messages and messages[0].role == "system" -%}{{- messages[0].content -}}{%- endif -%}
{%- for tool in tools or [] -%}{{- "\\ntype " + tool.function.name + " = (_: any) => any;" -}}{%- endfor -%}
{{- "<|end|>" -}}
{%- endif -%}
{%- set called = namespace(name=none) -%}
{%- for message in rest -%}
{%- if message.role == "assistant" and "tool_calls" in message -%}
{%- set later = namespace(answer=false) -%}
{%- for other in rest[loop.index:] -%}
{%- if other.role == "assistant" and "tool_calls" not in other -%}{%- set later.answer = true -%}{%- endif -%}
{%- endfor -%}
{%- if message.content and message.thinking -%}{{- raise_exception("both content and thinking") -}}{%- endif -%}
{%- set thought = message.content or message.thinking -%}
{%- if thought and not later.answer -%}
{{- "<|start|>assistant<|channel|>analysis<|message|>" + thought + "<|end|>" -}}
{%- endif -%}
{%- set called.name = message.tool_calls[0].function.name -%}
{{- "<|start|>assistant to=functions." + called.name + "<|channel|>commentary json<|message|>" -}}
{{- message.tool_calls[0].function.arguments | tojson -}}{{- "<|call|>" -}}
{%- elif message.role == "assistant" -%}
{%- set last = loop.last and not add_generation_prompt -%}
{%- if last and "thinking" in message -%}
{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" -}}
{%- endif -%}
{{- "<|start|>assistant<|channel|>final<|message|>" + message.content + ("<|return|>" if last else "<|end|>") -}}
{%- elif message.role == "tool" -%}
{%- if called.name is none -%}{{- raise_exception("no call before this result") -}}{%- endif -%}
{{- "<|start|>functions." + called.name + " to=assistant<|channel|>commentary<|message|>" -}}
{{- message.content | tojson -}}{{- "<|end|>" -}}
{%- elif message.role == "user" -%}
{{- "<|start|>user<|message|>" + message.content + "<|end|>" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|start|>assistant" -}}{%- endif -%}
"""

_TOKEN = re.compile("|".join(map(re.escape, harmony.TOKENS)))
_QUOTED = json.dumps("<|end|>")[1:-1]


def marked(text: str) -> str:
    """A text as the detokenizer gives it: its markers set off, but for one that the arguments above quote."""
    quoted = text.replace(ARGUMENTS, "\0")
    return _TOKEN.sub(lambda match: harmony.control(match[0]), quoted).replace("\0", ARGUMENTS)


def parse_messages(pieces: Iterable[str], *, ended: bool = True, **options: Any) -> tuple[list[Any], str | None]:
    parser = MessageParser(**options)
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish(ended=ended)
    return merge_parts(parts), parser.stop_string


def write_tokenizer(folder: Path, *, words: Iterable[str] = (), template: str = TEMPLATE) -> None:
    """Write a tokenizer of single bytes, some words, and harmony's control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in harmony.TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|return|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def harmony_tokenizer(folder: Path, **options: Any) -> Any:
    """The same as mlx-lm loads it."""
    write_tokenizer(folder, **options)
    return mlx_lm.tokenizer_utils.load(folder)
