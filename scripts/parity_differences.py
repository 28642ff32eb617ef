"""Recorded requests that this server answers differently than llama-server on purpose, by the reason."""

DIFFERENCES: dict[str, tuple[str, ...]] = {
    "A wrong method is a 405, with `Allow`": (
        *("405_get_on_chat", "405_delete_health", "405_put_chat", "405_post_health"),
    ),
    "A field of the wrong type or an empty conversation is a 422 that names it, never ignored": (
        *("chat_format_schema_not_object", "template_kwargs_not_object", "err_messages_empty"),
        *("err_max_tokens_float", "tokenize_missing", "detokenize_empty"),
    ),
    "`POST /models/load` answers with `success`, as the Tiles CLI expects": ("models_load_single",),
    "`logprobs` and `return_tokens` leave out the end token, which has no text": (
        *("chat_logprobs", "cmpl_logprobs", "nat_return_tokens"),
    ),
    "A schema is enforced as far as a grammar can, and the rest is named": ("chat_format_bad_schema",),
    "Turns that the chat template refuses are put in a form that it accepts": ("chat_two_assistants",),
    "A content part of an unknown type is left out and named": ("parts_unknown",),
    "One valid key is enough": ("key_x_api_key_with_wrong_bearer",),
    "Without `top_logprobs` there are no alternatives, as OpenAI has it": ("chat_logprobs_default_top",),
    "Log-probabilities are those of the answer, not of the reasoning before it": ("chat_logprobs_think",),
    "`logprobs` works with tools in a stream": ("tools_logprobs_stream",),
    "`parallel_tool_calls: false` gives one call": ("tools_parallel_off",),
    "Completions with a `suffix` are infilled if the model can": ("cmpl_suffix",),
    "An empty prompt is refused if the model has no begin token": ("cmpl_empty_prompt",),
    "Any model ranks, without a flag; transcription is not supported: a 404, as for any unknown route": (
        *("rerank_disabled", "transcriptions_unsupported"),
    ),
    "Items and parts of Responses have all of OpenAI's events, each done before the next; `incomplete` if cut off": (
        *("responses_tools_stream", "responses_tool_result"),
    ),
    "A block of Messages ends before the next begins": ("messages_stream",),
    "`thinking: disabled` turns reasoning off": ("messages_thinking_disabled",),
    "There are more metrics than the comparison reads": ("metrics",),
    "There is a page at `/`": ("nokey /",),
    "`bearer` may be upper or lower case, as HTTP requires": ("key_lowercase_bearer",),
    "`/metrics` is the server's, whichever model is named": ("metrics_no_model",),
    "A missing field is a 422 that names it": ("load_no_model",),
    "Embeddings need no flag": ("embeddings",),
    "An unknown slot is refused": ("id_range",),
    "A slot includes the end token, since the next step is launched before it is read": ("save_restore_erase",),
}


def reasons() -> dict[str, str]:
    """Give the reason of each case."""
    return {case: reason for reason, cases in DIFFERENCES.items() for case in cases}
