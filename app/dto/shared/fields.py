"""The registry of fields inside of parameters: what becomes of each, with a request that shows it.

The tables in docs/compatibility.md come from here, and a test sends every request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.dto.shared.parameters import Treatment
from app.dto.shared.sealed import seal


@dataclass(frozen=True, slots=True)
class Field:
    """A field, or a kind of item. `example` is the parameter of a request that has it."""

    name: str
    treatment: Treatment
    note: str
    example: Mapping[str, Any]


_USER: dict[str, Any] = {"role": "user", "content": "Hi"}
_TEXT_ONLY = "the model reads text only"
_SEES = "by a model that reads text only; one that sees takes base64, and URLs with `--allow-image-urls`"
_ELSEWHERE = "this server runs no tools"
_PICTURE = "in a tool's result it is replaced by a sentence for a model that reads text only"
_OTHER = "its text is read"
MADE_UP = "hologram"  # a type that no dialect has, for any that is not named here


def _of(kind: str) -> str:
    return "of any other type" if kind == MADE_UP else f"of type {kind}"


def _chat(name: str, treatment: Treatment, note: str, /, **message: Any) -> Field:
    return Field(f"messages[].{name}", treatment, note, {"messages": [_USER | message]})


def _chat_part(treatment: Treatment, note: str, kind: str, /, **part: Any) -> Field:
    return _chat(f"content[] {_of(kind)}", treatment, note, content=[{"type": kind} | part])


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
_SHOWN = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
_FUNCTION = {"name": "look", "description": "Look around", "parameters": {"type": "object", "properties": {}}}

CHAT = (
    _chat("role", "honoured", "system, developer, user, assistant and tool, in any order", role="developer"),
    _chat_part("honoured", "", "text", text="Hi"),
    _chat_part("honoured", "", "refusal", refusal="No"),
    _chat_part("refused", _SEES, "image_url", image_url={"url": "data:image/png;base64,AA=="}),
    _chat_part("refused", _TEXT_ONLY, "input_audio", input_audio={"data": "AA==", "format": "wav"}),
    _chat_part("refused", _TEXT_ONLY, "input_video", input_video={"data": "AA=="}),
    _chat_part("refused", _TEXT_ONLY, "file", file={"file_id": "f"}),
    _chat_part("ignored", _OTHER, MADE_UP),
    _chat("name", "honoured", "goes to the chat template", name="Ada"),
    Field(
        "messages[].reasoning_content",
        "honoured",
        "goes to the chat template",
        {"messages": [{"role": "assistant", "content": "Hm", "reasoning_content": "So"}, _USER]},
    ),
    Field(
        "messages[].tool_calls, tool_call_id",
        "honoured",
        "calls, and results in any order",
        {"messages": [_USER, {"role": "assistant", "tool_calls": [_CALL]}, _RESULT]},
    ),
    Field(
        "messages[].content[] of type image_url",
        "ignored",
        f"and other media: {_PICTURE}",
        {"messages": [_USER, {"role": "assistant", "tool_calls": [_CALL]}, _RESULT | {"content": _SHOWN}]},
    ),
    _chat("audio", "ignored", "changes nothing in the answer", audio={"id": "a"}),
    _chat(
        "function_call",
        "honoured",
        "deprecated: a single call, answered by role function",
        function_call={"name": "f", "arguments": ""},
    ),
    Field(
        "tools[].function.name, description, parameters",
        "honoured",
        "go to the chat template",
        {"tools": [{"type": "function", "function": _FUNCTION}]},
    ),
    Field(
        "tools[] of type custom",
        "honoured",
        "a function of one string; its format is shown to the model",
        {"tools": [{"type": "custom", "custom": {"name": "patch"}}]},
    ),
    Field("tools[] of any other type", "ignored", _ELSEWHERE, {"tools": [{"type": MADE_UP}]}),
    Field(
        "stream_options.include_usage",
        "honoured",
        "a last chunk with the usage",
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    Field(
        "stream_options.include_obfuscation",
        "ignored",
        "streams are not padded",
        {"stream": True, "stream_options": {"include_obfuscation": True}},
    ),
    Field("lora[].id, scale", "honoured", "of the adapters of --lora", {"lora": []}),
)

COMPLETION = (
    Field("prompt[].prompt_string", "honoured", "the prompt", {"prompt": [{"prompt_string": "Hi"}]}),
    Field(
        "prompt[].multimodal_data",
        "refused",
        f"{_SEES}, as many as there are markers in `prompt_string`: the `media_marker` of `/props`",
        {"prompt": [{"prompt_string": "Hi", "multimodal_data": ["AA=="]}]},
    ),
)


def _item(kind: str, treatment: Treatment, note: str = "", /, **item: Any) -> Field:
    return Field(f"input[] {_of(kind)}", treatment, note, {"input": [{"type": kind} | item, _USER]})


def _item_part(kind: str, treatment: Treatment, note: str = "", /, **part: Any) -> Field:
    message = {"role": "user", "content": [{"type": kind} | part]}
    return Field(f"input[].content[] {_of(kind)}", treatment, note, {"input": [message]})


def _side(kind: str) -> Field:
    return Field(f"tools[] {_of(kind)}", "ignored", _ELSEWHERE, {"tools": [{"type": kind}]})


_MADE = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
_CAME = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
_TEXT_MADE = {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "+a"}
_TEXT_CAME = {"type": "custom_tool_call_output", "call_id": "call_2", "output": "42"}

RESPONSES = (
    _item("message", "honoured", "roles user, assistant, system, developer", role="assistant", content="Hi"),
    Field("input[] of type function_call, function_call_output", "honoured", "", {"input": [_USER, _MADE, _CAME]}),
    _item("reasoning", "honoured", "goes to the chat template", summary=[{"type": "summary_text", "text": "Hm"}]),
    Field(
        "input[] of type custom_tool_call, custom_tool_call_output",
        "honoured",
        "",
        {"input": [_USER, _TEXT_MADE, _TEXT_CAME]},
    ),
    _item("item_reference", "refused", "unless it refers to a stored item, or to reasoning", id="msg_1"),
    *(
        _item(kind, "honoured", "is read as a call, its _output as the result", call_id="x", action={"a": 1})
        for kind in ("local_shell_call", "shell_call", "apply_patch_call", "computer_call", "tool_search_call")
    ),
    *(
        _item(kind, "honoured", "is read as a call and its result", id="x", outputs="4")
        for kind in ("mcp_call", "code_interpreter_call", "file_search_call")
    ),
    *(
        _item(kind, "ignored", "contains no text for the model", id="x")
        for kind in (
            *("web_search_call", "image_generation_call", "mcp_list_tools", "mcp_approval_request"),
            *("mcp_approval_response", "additional_tools", "configuration_update"),
        )
    ),
    _item(
        "compaction",
        "honoured",
        "the summary that it holds stands for what is before it; another server's is ignored",
        encrypted_content=seal("They spoke of tiles"),
    ),
    Field(
        "input[] of type compaction_trigger",
        "honoured",
        "at the end: the response is a compaction item, a summary of the conversation",
        {"input": [_USER, {"type": "compaction_trigger"}]},
    ),
    _item(MADE_UP, "ignored", _OTHER),
    _item_part("input_text", "honoured", text="Hi"),
    _item_part("output_text", "honoured", text="Hi"),
    _item_part("refusal", "honoured", refusal="No"),
    _item_part("input_image", "refused", _SEES, image_url="data:image/png;base64,AA=="),
    _item_part("input_file", "refused", _TEXT_ONLY, file_id="f"),
    _item_part("input_audio", "refused", _TEXT_ONLY, input_audio={"data": "AA=="}),
    _item_part(MADE_UP, "ignored", _OTHER),
    Field(
        "input[].output[] of type input_image",
        "ignored",
        f"and other media: {_PICTURE}",
        {"input": [_USER, _MADE, _CAME | {"output": [{"type": "input_image", "image_url": "data:,"}]}]},
    ),
    Field("tools[] of type function", "honoured", "", {"tools": [{"type": "function"} | _FUNCTION]}),
    Field(
        "tools[] of type custom",
        "honoured",
        "a function of one string; its calls are custom_tool_call",
        {"tools": [{"type": "custom", "name": "patch"}]},
    ),
    Field(
        "tools[].format of type grammar",
        "ignored",
        "is shown to the model, not enforced",
        {"tools": [{"type": "custom", "name": "patch", "format": {"type": "grammar", "definition": "start: /.+/"}}]},
    ),
    Field(
        "tools[] of type namespace",
        "honoured",
        "for the model its tools are namespace__name; calls have name and namespace",
        {"tools": [{"type": "namespace", "name": "crm", "tools": [{"type": "function"} | _FUNCTION]}]},
    ),
    *(
        _side(kind)
        for kind in (
            *("web_search", "file_search", "code_interpreter", "computer_use_preview", "image_generation"),
            *("mcp", "local_shell", "shell", "apply_patch", "tool_search", MADE_UP),
        )
    ),
    Field(
        "reasoning.effort, summary",
        "honoured",
        "`none` turns reasoning off, any other effort on; with summary, reasoning is sent as a summary",
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ),
    Field("reasoning.mode", "ignored", "changes nothing in the answer", {"reasoning": {"mode": "x"}}),
    Field("text.format", "honoured", "is enforced", {"text": {"format": {"type": "text"}}}),
    Field("text.verbosity", "ignored", "changes nothing in the answer", {"text": {"verbosity": "low"}}),
    Field(
        "input[].encrypted_content",
        "ignored",
        "of another server, in reasoning: cannot be decrypted here; its own is read",
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}, _USER]},
    ),
)


def _block(kind: str, treatment: Treatment, note: str = "", /, **block: Any) -> Field:
    message = {"role": "user", "content": [{"type": kind} | block]}
    return Field(f"messages[].content[] {_of(kind)}", treatment, note, {"messages": [message]})


def _said(kind: str, treatment: Treatment, note: str, /, **block: Any) -> Field:
    message = {"role": "assistant", "content": [{"type": kind} | block, {"type": "text", "text": "Hm"}]}
    return Field(f"messages[].content[] {_of(kind)}", treatment, note, {"messages": [_USER, message, _USER]})


_USED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]}
_TOLD = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42", "is_error": True}]}
_TEXT = {"type": "text", "text": "Hi"}
_IMAGE = {"type": "image", "source": {"type": "url", "url": "x"}}
_LOOKED = {"type": "tool_result", "tool_use_id": "t", "content": [_IMAGE]}
_SEARCHED = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
_RESULTS = [{"type": "web_search_result", "title": "a", "url": "b"}]
_CAME_UP = {"type": "web_search_tool_result", "tool_use_id": "s", "content": _RESULTS}

MESSAGES = (
    _block("text", "honoured", text="Hi"),
    _said("thinking", "honoured", "goes to the chat template", thinking="So", signature="tiles"),
    _said("redacted_thinking", "ignored", "cannot be decrypted here", data="x"),
    Field("messages[].content[] of type tool_use, tool_result", "honoured", "", {"messages": [_USER, _USED, _TOLD]}),
    _block("image", "refused", _SEES, source={"type": "base64", "media_type": "image/png", "data": "AA=="}),
    Field(
        "messages[].content[].content[] of type image",
        "ignored",
        f"and documents without text: {_PICTURE}",
        {"messages": [_USER, _USED, {"role": "user", "content": [_LOOKED]}]},
    ),
    _block("document", "refused", "a PDF: the model reads text only", source={"type": "url", "url": "x"}),
    Field(
        "messages[].content[] of type document, of text",
        "honoured",
        "with a text source, or text content",
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "Hi"}}]}]},
    ),
    _block("search_result", "honoured", "title, source and text", title="a", source="b", content=[_TEXT]),
    _block("container_upload", "ignored", "contains no text for the model", file_id="f"),
    Field(
        "messages[].content[] of type server_tool_use, mcp_tool_use",
        "honoured",
        "read as tool_use; web_search_tool_result and the like as tool_result, as far as they are text",
        {"messages": [_USER, {"role": "assistant", "content": [_SEARCHED, _CAME_UP, _TEXT]}, _USER]},
    ),
    _block(MADE_UP, "ignored", _OTHER),
    Field(
        "messages[].content[].cache_control, citations",
        "ignored",
        "every prompt is cached; nothing is cited",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [_TEXT | {"cache_control": {"type": "ephemeral"}, "citations": {"enabled": True}}],
                }
            ]
        },
    ),
    Field(
        "system[].cache_control",
        "ignored",
        "every prompt is cached",
        {"system": [_TEXT | {"cache_control": {"type": "ephemeral"}}]},
    ),
    Field(
        "tools[].name, description, input_schema",
        "honoured",
        "go to the chat template",
        {"tools": [{"name": "look", "description": "Look", "input_schema": {"type": "object"}}]},
    ),
    Field(
        "tools[].defer_loading",
        "honoured",
        "left out until a tool_reference, a call or tool_choice names it; with a tool_search_tool none is left out",
        {"tools": [{"name": "look", "input_schema": {"type": "object"}, "defer_loading": True}]},
    ),
    Field(
        "tools[].cache_control",
        "ignored",
        "every prompt is cached",
        {"tools": [{"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}]},
    ),
    *(
        Field(f"tools[] {_of(kind)}", "ignored", _ELSEWHERE, {"tools": [{"type": kind, "name": "x"}]})
        for kind in (
            *("bash_20250124", "text_editor_20250728", "web_search_20250305", "code_execution_20250825"),
            *("web_fetch_20250910", "memory_20250818", "computer_toolset_20260801", "mcp_toolset", MADE_UP),
        )
    ),
    Field(
        "thinking.type, budget_tokens, display",
        "honoured",
        "enabled, disabled and adaptive; display `omitted` leaves the reasoning out",
        {"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}},
    ),
    Field(
        "output_config.effort",
        "honoured",
        "goes to chat templates with levels of effort",
        {"output_config": {"effort": "low"}},
    ),
)

_OPTIONS = (
    Field(
        "options.num_predict, temperature, top_k, top_p, min_p, typical_p, seed, stop",
        "honoured",
        "as in chat completions; num_predict below 0 is up to the context",
        {"options": {"num_predict": 1, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "seed": 1, "stop": ["x"]}},
    ),
    Field(
        "options.repeat_penalty, repeat_last_n, presence_penalty, frequency_penalty",
        "honoured",
        "as in chat completions",
        {"options": {"num_predict": 1, "repeat_penalty": 1.1, "repeat_last_n": 64, "presence_penalty": 0.1}},
    ),
    Field(
        "options.num_ctx, num_batch, num_gpu, num_thread",
        "ignored",
        "the server's own settings",
        {"options": {"num_predict": 1, "num_ctx": 4096, "num_batch": 8, "num_gpu": 1, "num_thread": 4}},
    ),
    Field(
        "options.mirostat, mirostat_tau, mirostat_eta, tfs_z, num_keep",
        "ignored",
        "is not supported",
        {
            "options": {
                "num_predict": 1,
                "mirostat": 2,
                "mirostat_tau": 5.0,
                "mirostat_eta": 0.1,
                "tfs_z": 0.5,
                "num_keep": 4,
            }
        },
    ),
)


def _ollama(name: str, treatment: Treatment, note: str, /, *before: Any, **message: Any) -> Field:
    return Field(f"messages[].{name}", treatment, note, {"messages": [_USER, *before, _USER | message]})


_OLLAMA_CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "it"}}}]}
_OLLAMA_RESULT = {"role": "tool", "tool_name": "look", "content": "42"}

OLLAMA_CHAT = (
    _ollama("role", "honoured", "system, user, assistant and tool, in any order", role="system"),
    _ollama("images", "refused", _SEES, images=["AA=="]),
    Field(
        "messages[].thinking",
        "honoured",
        "goes to the chat template",
        {"messages": [_USER, {"role": "assistant", "content": "Hm", "thinking": "So"}, _USER]},
    ),
    Field(
        "messages[].tool_calls, tool_name, tool_call_id",
        "honoured",
        "calls, and results: each is that of the next call, unless it names one",
        {"messages": [_USER, _OLLAMA_CALL, _OLLAMA_RESULT]},
    ),
    Field(
        "tools[].function.name, description, parameters",
        "honoured",
        "go to the chat template",
        {"tools": [{"type": "function", "function": _FUNCTION}]},
    ),
    Field("tools[] of any other type", "ignored", _ELSEWHERE, {"tools": [{"type": MADE_UP}]}),
    *_OPTIONS,
)

REGISTRIES: dict[str, tuple[Field, ...]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/completion": COMPLETION,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/api/chat": OLLAMA_CHAT,
    "/api/generate": _OPTIONS,
}
