"""Examples of Anthropic's Messages for the document."""

from litestar.openapi.spec import Example

REQUESTS = [
    Example(
        summary="A question",
        value={"messages": [{"role": "user", "content": "What is the capital of Norway?"}], "max_tokens": 128},
    ),
    Example(
        summary="A streamed answer with a tool",
        value={
            "system": "You are a helpful assistant.",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]}],
            "max_tokens": 512,
            "stream": True,
            "thinking": {"type": "disabled"},
            "tools": [
                {
                    "name": "get_weather",
                    "description": "Weather of a city",
                    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
                }
            ],
        },
    ),
]
ANSWER = {
    "id": "msg_7d1f9c",
    "type": "message",
    "role": "assistant",
    "model": "tiles-nano",
    "content": [{"type": "text", "text": "The capital of Norway is Oslo."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 15,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 8,
    },
    "tiles": {
        "finish": "end_token",
        "cache": {"cached_tokens": 0, "reason": "not_stored", "first_diff": None, "changed": None},
    },
}
EVENTS = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    '{"type":"text_delta","text":"Oslo"}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
