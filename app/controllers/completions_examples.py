"""Examples of completions for the document, OpenAI's and llama.cpp's."""

from litestar.openapi.spec import Example

_TIMINGS = {
    "cache_n": 0,
    "prompt_n": 10,
    "prompt_ms": 21.4,
    "prompt_per_token_ms": 2.14,
    "prompt_per_second": 467.3,
    "predicted_n": 8,
    "predicted_ms": 36.1,
    "predicted_per_token_ms": 5.157,
    "predicted_per_second": 193.9,
}
_HEAD = {
    "id": "cmpl-7d1f9c",
    "object": "text_completion",
    "created": 1767225600,
    "model": "tiles-nano",
    "system_fingerprint": "b1-tiles-0.1.0",
}
_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 8,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 0},
}
_TEXT = " jumps over the lazy dog."
ANSWER = _HEAD | {
    "choices": [{"text": _TEXT, "index": 0, "logprobs": None, "finish_reason": "stop"}],
    "usage": _USAGE,
    "timings": _TIMINGS,
}
EVENTS = (
    'data: {"id":"cmpl-7d1f9c","object":"text_completion","created":1767225600,"model":"tiles-nano",'
    '"system_fingerprint":"b1-tiles-0.1.0","choices":[{"text":" jumps","index":0,"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
NATIVE_ANSWER = {
    "index": 0,
    "content": _TEXT,
    "tokens": [],
    "id_slot": -1,
    "stop": True,
    "model": "tiles-nano",
    "tokens_predicted": 8,
    "tokens_evaluated": 10,
    "generation_settings": {"temperature": 0.8, "top_k": 40, "n_predict": 16, "stop": []},
    "prompt": "The quick brown fox",
    "has_new_line": False,
    "truncated": False,
    "stop_type": "eos",
    "stopping_word": "",
    "tokens_cached": 17,
    "timings": _TIMINGS,
}
NATIVE_EVENTS = (
    'data: {"index":0,"content":" jumps","tokens":[],"stop":false,"id_slot":-1,"tokens_predicted":1,'
    '"tokens_evaluated":10}\n\n'
)
REQUESTS = [
    Example(summary="A prompt", value={"prompt": "The quick brown fox", "max_tokens": 16}),
    Example(summary="Two prompts, streamed", value={"prompt": ["The quick", "Once"], "max_tokens": 16, "stream": True}),
    Example(summary="Token ids", value={"prompt": [355, 75, 330], "max_tokens": 16, "temperature": 0}),
]
NATIVE_REQUESTS = [
    Example(summary="A prompt", value={"prompt": "The quick brown fox", "n_predict": 16}),
    Example(
        summary="Text and token ids, and a part of the answer",
        value={
            "prompt": [355, 75, " brown fox"],
            "n_predict": 16,
            "response_fields": ["content", "timings/predicted_n"],
        },
    ),
]
INFILL_REQUESTS = [
    Example(value={"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 16})
]
