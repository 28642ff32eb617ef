"""Streams of calls, of every family that mlx-lm can parse and of Llama 3, as the parsers want them."""

import json
from pathlib import Path
from typing import Any

import mlx_lm.tokenizer_utils
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

A: dict[str, Any] = {"a": 'x <b> {é} "q" 🙂', "b": 2}
PLAIN: dict[str, Any] = {"a": "x y", "b": 2}  # for formats that have no way to write quotes
TWO: dict[str, Any] = {"a": "y", "b": -3}


class Family:
    """A way to write calls: a template by which mlx-lm tells it, its calls, and which of its markers may be tokens."""

    def __init__(
        self,
        parser: str | None,
        template: str,
        *calls: str,
        arguments: dict[str, Any] = A,
        markers: tuple[str, ...] = (),
        streams: bool = False,
        after: str = "Done.",
    ) -> None:
        self.parser = parser
        self.template = template
        self.calls = calls
        self.arguments = arguments
        self.markers = markers
        self.streams = streams
        self.before = "Well. "
        self.after = after

    @property
    def text(self) -> str:
        return self.before + "".join(self.calls) + self.after


def to_json(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def hermes(arguments: Any) -> str:
    return f'<tool_call>\n{{"name": "add", "arguments": {to_json(arguments)}}}\n</tool_call>\n'


def llama(arguments: Any) -> str:
    return f'{{"name": "add", "parameters": {to_json(arguments)}}}'


def kimi(number: int, arguments: Any) -> str:
    return f"<|tool_call_begin|>functions.add:{number}<|tool_call_argument_begin|>{to_json(arguments)}<|tool_call_end|>"


def xtml(number: int, arguments: dict[str, Any]) -> str:
    kinds = {key: "string" if isinstance(value, str) else "number" for key, value in arguments.items()}
    pairs = "".join(
        f'<|open|>argument key="{key}" type="{kinds[key]}"<|sep|>{value}<|close|>argument<|sep|>'
        for key, value in arguments.items()
    )
    return f'<|open|>call tool="add" index="{number}"<|sep|>{pairs}<|close|>call<|sep|>'


def arg_key(prefix: str, arguments: dict[str, Any]) -> str:
    pairs = "".join(
        f"<{prefix}arg_key>{key}</{prefix}arg_key>\n<{prefix}arg_value>{value}</{prefix}arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<{prefix}tool_call>add\n{pairs}</{prefix}tool_call>"


def tagged(before: str, opens: str, closes: str, after: str, arguments: dict[str, Any]) -> str:
    pairs = (f"{opens.format(key)}{value}{closes}" for key, value in arguments.items())
    return before + "".join(pairs) + after


def qwen_coder(arguments: dict[str, Any]) -> str:
    before, after = "<tool_call>\n<function=add>\n", "</function>\n</tool_call>\n"
    return tagged(before, "<parameter={}>\n", "\n</parameter>\n", after, arguments)


def minicpm(arguments: dict[str, Any]) -> str:
    return tagged('<function name="add">', '<param name="{}">', "</param>", "</function>", arguments)


def minimax(arguments: dict[str, Any]) -> str:
    return tagged('<invoke name="add">\n', '<parameter name="{}">', "</parameter>\n", "</invoke>\n", arguments)


def muse(arguments: dict[str, Any]) -> str:
    before, after = '<atem:invoke name="add">\n', "</atem:invoke>\n"
    return tagged(before, '<atem:parameter name="{}">', "</atem:parameter>\n", after, arguments)


def objects(*calls: dict[str, Any]) -> str:
    return ", ".join(f'{{"name": "add", "arguments": {to_json(arguments)}}}' for arguments in calls)


def cohere(number: int, arguments: Any) -> str:
    return f'{{"tool_call_id": "{number}", "tool_name": "add", "parameters": {to_json(arguments)}}}'


def command_r(arguments: Any) -> str:
    return f'{{"tool_name": "add", "parameters": {to_json(arguments)}}}'


def deepseek(arguments: Any, *, fenced: bool = False) -> str:
    head = "function<｜tool▁sep｜>add\n```json\n" if fenced else "add<｜tool▁sep｜>"  # noqa: RUF001
    tail = "\n```" if fenced else ""
    return f"<｜tool▁call▁begin｜>{head}{to_json(arguments)}{tail}<｜tool▁call▁end｜>"  # noqa: RUF001


def solar(number: int, arguments: Any) -> str:
    head = f"<|tool_call:begin|>abcdefghi{number}<|tool_call:name|>add<|tool_call:args|>"
    return f"{head}{to_json(arguments)}<|tool_call:end|>"


def seed(arguments: dict[str, Any]) -> str:
    before, after = "<seed:tool_call>\n<function=add>\n", "</function>\n</seed:tool_call>\n"
    return tagged(before, "<parameter={}>", "</parameter>\n", after, arguments)


def dsml(arguments: dict[str, Any]) -> str:
    mark = "｜DSML｜"  # noqa: RUF001
    pairs = (
        f'<{mark}parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
        f"{value if isinstance(value, str) else to_json(value)}</{mark}parameter>\n"
        for key, value in arguments.items()
    )
    return f'<{mark}invoke name="add">\n{"".join(pairs)}</{mark}invoke>\n'


def hunyuan(arguments: dict[str, Any]) -> str:
    pairs = (
        f"<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>{value}</arg_value:opensource>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call:opensource>add<tool_sep:opensource>\n{''.join(pairs)}</tool_call:opensource>\n"


def minimax_m3(arguments: dict[str, Any]) -> str:
    mark = "]<]minimax[>["
    pairs = (f"{mark}<{key}>{value}{mark}</{key}>" for key, value in arguments.items())
    return f'{mark}<invoke name="add">{"".join(pairs)}{mark}</invoke>\n'


LLAMA = 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
DEEPSEEK = tuple(
    f"<｜tool▁{word}｜>"  # noqa: RUF001
    for word in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end")
)
FAMILIES = {
    "json_tools": Family(
        "json_tools",
        "<tool_call> tool_call.name",
        hermes(A),
        hermes(TWO),
        markers=("<tool_call>", "</tool_call>"),
        streams=True,
    ),
    "llama": Family(None, LLAMA, llama(A), llama(TWO), streams=True),
    "mistral list": Family(
        "mistral",
        "[TOOL_CALLS]",
        f'[TOOL_CALLS] [{{"name": "add", "arguments": {to_json(A)}, "id": "abcdefghi"}}, '
        f'{{"name": "add", "arguments": {to_json(TWO)}}}]',
        markers=("[TOOL_CALLS]",),
        streams=True,
        after="",
    ),
    "mistral heads": Family(
        "mistral",
        "[TOOL_CALLS] [ARGS]",
        f"[TOOL_CALLS]add[ARGS]{to_json(A)}",
        f"[TOOL_CALLS]add[ARGS]{to_json(TWO)}",
        markers=("[TOOL_CALLS]", "[ARGS]"),
        streams=True,
        after="",
    ),
    "mistral ids": Family(
        "mistral",
        "[TOOL_CALLS] [CALL_ID] [ARGS]",
        f"[TOOL_CALLS]add[CALL_ID]abcdefgh1[ARGS]{to_json(A)}",
        f"[TOOL_CALLS]add[CALL_ID]abcdefgh2[ARGS]{to_json(TWO)}",
        markers=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
        streams=True,
        after="",
    ),
    "kimi_k2": Family(
        "kimi_k2",
        "<|tool_calls_section_begin|>",
        f"<|tool_calls_section_begin|>{kimi(0, A)}{kimi(1, TWO)}<|tool_calls_section_end|>",
        markers=(
            *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
            *("<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        ),
        streams=True,
    ),
    "kimi_k3": Family(
        "kimi_k3",
        "",
        f"<|open|>tools<|sep|>{xtml(1, A)}{xtml(2, TWO)}<|close|>tools<|sep|>",
        markers=("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
    ),
    "qwen3_coder": Family(
        "qwen3_coder",
        "<tool_call>\n<function=",
        qwen_coder(A),
        qwen_coder(TWO),
        markers=("<tool_call>", "</tool_call>"),
    ),
    "glm47": Family(
        "glm47",
        "<arg_key></arg_key>\n<arg_value>",
        arg_key("", A),
        arg_key("", TWO),
        markers=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "laguna": Family("laguna", "</arg_key>\n<arg_value>", arg_key("", A), arg_key("", TWO)),
    "longcat": Family(
        "longcat",
        "<longcat_tool_call>",
        arg_key("longcat_", A),
        arg_key("longcat_", TWO),
        markers=(
            *("<longcat_tool_call>", "</longcat_tool_call>", "<longcat_arg_key>", "</longcat_arg_key>"),
            *("<longcat_arg_value>", "</longcat_arg_value>"),
        ),
    ),
    "minicpm5": Family("minicpm5", '<function name="x"><param name="y">', minicpm(A), minicpm(TWO)),
    "minimax_m2": Family(
        "minimax_m2",
        "<minimax:tool_call>",
        f"<minimax:tool_call>\n{minimax(A)}{minimax(TWO)}</minimax:tool_call>",
        markers=("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    "muse_spark": Family(
        "muse_spark",
        "<atem:function_calls>",
        f"<atem:function_calls>\n{muse(A)}{muse(TWO)}</atem:function_calls>",
    ),
    "pythonic": Family(
        "pythonic",
        "<|tool_call_start|>",
        '<|tool_call_start|>[add(a="x y", b=2), add(a="y", b=-3)]<|tool_call_end|>',
        arguments=PLAIN,
        markers=("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    "function_gemma": Family(
        "function_gemma",
        "<start_function_call>",
        "<start_function_call>call:add{a:<escape>x y<escape>,b:2}<end_function_call>",
        "<start_function_call>call:add{a:<escape>y<escape>,b:-3}<end_function_call>",
        arguments=PLAIN,
        markers=("<start_function_call>", "<end_function_call>", "<escape>"),
    ),
    "gemma4": Family(
        "gemma4",
        "<|tool_call><tool_call|>",
        '<|tool_call>call:add{a:<|"|>x y<|"|>,b:2}<tool_call|>',
        '<|tool_call>call:add{a:<|"|>y<|"|>,b:-3}<tool_call|>',
        arguments=PLAIN,
        markers=("<|tool_call>", "<tool_call|>", '<|"|>'),
    ),
    # Those that mlx-lm does not know.
    "seed_oss": Family(None, "<seed:tool_call>", seed(A), seed(TWO), markers=("<seed:tool_call>", "</seed:tool_call>")),
    "dsml": Family(
        None,
        "'｜DSML｜' + 'function_calls>'",  # noqa: RUF001
        f"<｜DSML｜function_calls>\n{dsml(A)}{dsml(TWO)}</｜DSML｜function_calls>",  # noqa: RUF001
        markers=("｜DSML｜",),  # noqa: RUF001
    ),
    "dsml tool calls": Family(
        None,
        "'｜DSML｜' + 'tool_calls>'",  # noqa: RUF001
        f"<｜DSML｜tool_calls>\n{dsml(A)}{dsml(TWO)}</｜DSML｜tool_calls>",  # noqa: RUF001
        markers=("｜DSML｜",),  # noqa: RUF001
    ),
    "minimax_m3": Family(
        None,
        "]<]minimax[>[ <tool_call> tool_call.name",
        f"]<]minimax[>[<tool_call>\n{minimax_m3(A)}{minimax_m3(TWO)}]<]minimax[>[</tool_call>",
        markers=("]<]minimax[>[", "<tool_call>", "</tool_call>"),
    ),
    "cohere": Family(
        None,
        "<|START_ACTION|>",
        f"<|START_ACTION|>[\n    {cohere(0, A)},\n    {cohere(1, TWO)}\n]<|END_ACTION|>",
        markers=("<|START_ACTION|>", "<|END_ACTION|>"),
        streams=True,
    ),
    "command_r": Family(
        None,
        "Write 'Action:' followed by a json-formatted list, or use the `directly-answer` tool",
        f"Action: ```json\n[\n    {command_r(A)},\n    {command_r(TWO)}\n]```",
        streams=True,
    ),
    "apertus": Family(
        None,
        "<|tools_prefix|>",
        f'<|tools_prefix|>[{{"add": {to_json(A)}}}, {{"add": {to_json(TWO)}}}]<|tools_suffix|>',
        markers=("<|tools_prefix|>", "<|tools_suffix|>"),
        streams=True,
    ),
    "deepseek": Family(
        None,
        "<｜tool▁calls▁begin｜>",  # noqa: RUF001
        f"<｜tool▁calls▁begin｜>{deepseek(A)}{deepseek(TWO)}<｜tool▁calls▁end｜>",  # noqa: RUF001
        markers=DEEPSEEK,
        streams=True,
    ),
    "deepseek in code": Family(
        None,
        "<｜tool▁calls▁begin｜> ```json",  # noqa: RUF001
        f"<｜tool▁calls▁begin｜>{deepseek(A, fenced=True)}\n"  # noqa: RUF001
        f"{deepseek(TWO, fenced=True)}<｜tool▁calls▁end｜>",  # noqa: RUF001
        markers=DEEPSEEK,
        streams=True,
    ),
    "nemotron": Family(None, "<TOOLCALL>", f"<TOOLCALL>[{objects(A, TWO)}]</TOOLCALL>", streams=True),
    "tool_calls": Family(None, "<tool_calls>", f"<tool_calls>[{objects(A, TWO)}]</tool_calls>", streams=True),
    "granite": Family(
        None,
        "respond only with <|tool_call|> followed by a JSON list",
        f"<|tool_call|>[{objects(A, TWO)}]",
        markers=("<|tool_call|>",),
        streams=True,
        after="",
    ),
    "solar": Family(
        None,
        "<|tool_calls|><|tool_call:begin|>",
        f"<|tool_calls|>{solar(0, A)}{solar(1, TWO)}<|calls|>",
        markers=(
            *("<|tool_calls|>", "<|calls|>", "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>"),
            "<|tool_call:end|>",
        ),
        streams=True,
    ),
    "functionary": Family(
        None,
        "<function=example_function_name>",
        f"<function=add>{to_json(A)}</function>",
        f"<function=add>{to_json(TWO)}</function>",
        streams=True,
    ),
    "gigachat": Family(
        None,
        "<|function_call|>",
        f"<|function_call|>{objects(A)}",
        f"<|function_call|>{objects(TWO)}",
        markers=("<|function_call|>",),
        streams=True,
        after="",
    ),
    "gigachat_role": Family(
        None,
        "'function call'",
        f"<|message_sep|>\n\nfunction call<|role_sep|>\n{objects(A)}",
        f"<|message_sep|>\n\nfunction call<|role_sep|>\n{objects(TWO)}",
        markers=("<|message_sep|>", "<|role_sep|>"),
        streams=True,
        after="",
    ),
    "hunyuan_3": Family(
        None,
        "':opensource'",
        f"<tool_calls:opensource>\n{hunyuan(A)}{hunyuan(TWO)}</tool_calls:opensource>",
        markers=(
            *("<tool_calls:opensource>", "</tool_calls:opensource>", "<tool_call:opensource>"),
            *("</tool_call:opensource>", "<tool_sep:opensource>", "<arg_key:opensource>", "</arg_key:opensource>"),
            *("<arg_value:opensource>", "</arg_value:opensource>"),
        ),
    ),
    "hermes by its prompt": Family(
        None, '<tool_call>\n{"name": <function-name>}\n</tool_call>', hermes(A), hermes(TWO), streams=True
    ),
}


def byte_tokenizer(folder: Path, family: Family, markers: tuple[str, ...]) -> Any:
    """A tokenizer of single bytes and of some markers, which are control tokens, as mlx-lm loads it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in ("<|end|>", *markers)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    if family.parser == "laguna":  # its template is that of another family
        settings["tool_parser_type"] = "laguna"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(family.template)
    return mlx_lm.tokenizer_utils.load(folder)
