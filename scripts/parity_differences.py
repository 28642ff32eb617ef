"""Recorded requests that this server answers differently than llama-server on purpose, by the reason."""

DIFFERENCES: dict[str, tuple[str, ...]] = {
    "A wrong method is a 405, with `Allow`": (
        *("405_get_on_chat", "405_delete_health", "405_put_chat", "405_post_health"),
    ),
    "A field of the wrong type or an empty conversation is a 422 that names it, never passed over": (
        *("chat_format_schema_not_object", "template_kwargs_not_object", "err_messages_empty"),
        *("err_max_tokens_float", "tokenize_missing", "detokenize_empty"),
    ),
    "`POST /models/load` is the Tiles contract's, which answers with `success`": ("models_load_single",),
    "`logprobs` and `return_tokens` leave out the end token, which has no text": (
        *("chat_logprobs", "cmpl_logprobs", "nat_return_tokens"),
    ),
    "A schema is held as far as a grammar can, and what is not held is named": ("chat_format_bad_schema",),
    "Turns that the chat template refuses are put as it takes them": ("chat_two_assistants",),
    "A part of a type that nobody knows is left out and named": ("parts_unknown",),
    "One right key is enough": ("key_x_api_key_with_wrong_bearer",),
    "Without `top_logprobs` there are no alternatives, as OpenAI has it": ("chat_logprobs_default_top",),
    "Log-probabilities are told of the answer, not of the reasoning before it": ("chat_logprobs_think",),
    "`logprobs` goes with tools in a stream": ("tools_logprobs_stream",),
    "`parallel_tool_calls: false` gives one call": ("tools_parallel_off",),
    "A `suffix` is filled in, where the model can": ("cmpl_suffix",),
    "An empty prompt is refused where the model has no token to begin with": ("cmpl_empty_prompt",),
    "There is no reranking and no transcription: a 404, as for any unknown route": (
        *("rerank_disabled", "transcriptions_unsupported"),
    ),
    "Items and parts of Responses have all of OpenAI's events, each done before the next; a cut one is `incomplete`": (
        *("responses_tools_stream", "responses_tool_result"),
    ),
    "A block of Messages ends before the next begins": ("messages_stream",),
    "`thinking: disabled` turns thinking off": ("messages_thinking_disabled",),
    "There are more metrics than the comparison reads": ("metrics",),
    "There is a page at `/`": ("nokey /",),
    "`bearer` is taken in any case, as HTTP has it": ("key_lowercase_bearer",),
    "Metrics are those of the server, whatever models it has": ("metrics_no_model",),
    "A field that is missing is a 422 that names it": ("load_no_model",),
    "Models are neither downloaded nor deleted, whatever they are called": (
        *("post_models_empty", "delete_models_none"),
    ),
    "Every model that can gives embeddings, unasked": ("embeddings",),
    "A slot that does not exist is refused": ("id_range",),
    "A slot holds the end token too, since the next step is launched before it is read": ("save_restore_erase",),
}


def reasons() -> dict[str, str]:
    """Give the reason of each case."""
    return {case: reason for reason, cases in DIFFERENCES.items() for case in cases}
