"""Examples of OpenAI's Responses for the document."""

from litestar.openapi.spec import Example

REQUESTS = [
    Example(
        summary="A question",
        value={"input": "What is the capital of Norway?", "max_output_tokens": 128, "store": False},
    ),
    Example(
        summary="A streamed answer with a tool",
        value={
            "instructions": "You are a helpful assistant.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "What is the weather in Oslo?"}]}],
            "stream": True,
            "store": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "tools": [
                {
                    "type": "function",
                    "name": "get_weather",
                    "description": "Weather of a city",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                }
            ],
        },
    ),
]
ANSWER = {
    "id": "resp_7d1f9c",
    "object": "response",
    "created_at": 1767225600,
    "completed_at": 1767225601,
    "status": "completed",
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": 128,
    "max_tool_calls": None,
    "model": "tiles-nano",
    "output": [
        {
            "type": "message",
            "id": "msg_7d1f9c",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "annotations": [], "logprobs": [], "text": "The capital of Norway is Oslo."}
            ],
        }
    ],
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": False,
    "safety_identifier": None,
    "temperature": 0.8,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 0.95,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 15,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 23,
    },
    "metadata": {},
}
EVENTS = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
    '"item_id":"msg_7d1f9c","output_index":0,"content_index":0,"delta":"Oslo","logprobs":[]}\n\n'
)
COMPACTED = {
    "id": "resp_9e0b42",
    "object": "response.compaction",
    "created_at": 1767225602,
    "output": [
        {
            "id": "msg_51c2",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is the capital of Norway?"}],
        },
        {"type": "compaction", "id": "cmp_9e0b42", "encrypted_content": "tiles.VGhlIGNhcGl0YWwgaXMgT3Nsby4="},
    ],
    "usage": {
        "input_tokens": 120,
        "input_tokens_details": {"cached_tokens": 23, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 129,
    },
}
ITEMS = {
    "object": "list",
    "data": [
        {
            "id": "msg_51c2",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is the capital of Norway?"}],
        }
    ],
    "first_id": "msg_51c2",
    "last_id": "msg_51c2",
    "has_more": False,
}
