"""Examples of chat completions for the document."""

from litestar.openapi.spec import Example

REQUESTS = [
    Example(
        summary="A question",
        value={"messages": [{"role": "user", "content": "What is the capital of Norway?"}], "max_tokens": 128},
    ),
    Example(
        summary="A streamed answer with a tool",
        value={
            "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "Weather of a city",
                        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                    },
                }
            ],
        },
    ),
    Example(
        summary="A turn of the memory agent",
        value={
            "input": "My name is Ada.",
            "chat_start": True,
            "python_code": "",
            "messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": "My name is Ada."}],
            "stream": True,
        },
    ),
]
ANSWER = {
    "id": "chatcmpl-7d1f9c",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "tiles-nano",
    "system_fingerprint": "b1-tiles-0.1.0",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The capital of Norway is Oslo."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 15,
        "completion_tokens": 8,
        "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "timings": {
        "cache_n": 0,
        "prompt_n": 15,
        "prompt_ms": 21.4,
        "prompt_per_token_ms": 1.427,
        "prompt_per_second": 700.9,
        "predicted_n": 8,
        "predicted_ms": 36.1,
        "predicted_per_token_ms": 5.157,
        "predicted_per_second": 193.9,
    },
    "metrics": {"ttft_ms": 21.9, "total_tokens": 8, "tokens_per_second": 137.9, "total_latency_s": 0.058},
    "tiles": {
        "finish": "end_token",
        "cache": {"cached_tokens": 0, "reason": "not_stored", "first_diff": None, "changed": None},
    },
}
EVENTS = (
    'data: {"id":"chatcmpl-7d1f9c","object":"chat.completion.chunk","created":1767225600,"model":"tiles-nano",'
    '"system_fingerprint":"b1-tiles-0.1.0","choices":[{"index":0,"delta":{"content":"Oslo"},"finish_reason":null}]}'
    "\n\ndata: [DONE]\n\n"
)
