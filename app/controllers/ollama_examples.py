"""Examples of Ollama's API for the OpenAPI document."""

from litestar.openapi.spec import Example

_HEAD = {"model": "tiles-nano:latest", "created_at": "2026-01-01T00:00:00.000000Z"}
_NUMBERS = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 41200000,
    "load_duration": 0,
    "prompt_eval_count": 15,
    "prompt_eval_duration": 12300000,
    "eval_count": 3,
    "eval_duration": 28900000,
}
CHAT = _HEAD | {"message": {"role": "assistant", "content": "Hello! How can I help?"}} | _NUMBERS
CHAT_LINES = (
    '{"model":"tiles-nano:latest","created_at":"2026-01-01T00:00:00.000000Z","done":false,'
    '"message":{"role":"assistant","content":"Hello!"}}\n'
    '{"model":"tiles-nano:latest","created_at":"2026-01-01T00:00:00.041200Z","done":true,"done_reason":"stop",'
    '"total_duration":41200000,"load_duration":0,"prompt_eval_count":15,"prompt_eval_duration":12300000,'
    '"eval_count":3,"eval_duration":28900000,"message":{"role":"assistant","content":""}}\n'
)
GENERATED = _HEAD | {"response": "Hello! How can I help?"} | _NUMBERS
GENERATED_LINES = (
    '{"model":"tiles-nano:latest","created_at":"2026-01-01T00:00:00.000000Z","done":false,"response":"Hello!"}\n'
    '{"model":"tiles-nano:latest","created_at":"2026-01-01T00:00:00.041200Z","done":true,"done_reason":"stop",'
    '"total_duration":41200000,"load_duration":0,"prompt_eval_count":15,"prompt_eval_duration":12300000,'
    '"eval_count":3,"eval_duration":28900000,"response":""}\n'
)
_LOOK = {"name": "look", "description": "Look around", "parameters": {"type": "object", "properties": {}}}
CHAT_REQUESTS = [
    Example(summary="A question", value={"model": "tiles-nano", "messages": [{"role": "user", "content": "Hello!"}]}),
    Example(
        summary="Tools and options, in one piece",
        value={
            "model": "tiles-nano:latest",
            "messages": [{"role": "user", "content": "What is here?"}],
            "tools": [{"type": "function", "function": _LOOK}],
            "options": {"temperature": 0, "num_predict": 64},
            "stream": False,
        },
    ),
    Example(summary="Load the model", value={"model": "tiles-nano"}),
]
GENERATE_REQUESTS = [
    Example(summary="A prompt", value={"model": "tiles-nano", "prompt": "Hello!", "system": "Be brief."}),
    Example(
        summary="JSON, in one piece",
        value={"model": "tiles-nano", "prompt": "Name a colour", "format": "json", "stream": False},
    ),
]
EMBEDDED = {
    "model": "tiles-nano:latest",
    "embeddings": [[0.6, -0.8]],
    "total_duration": 5200000,
    "load_duration": 0,
    "prompt_eval_count": 2,
}
EMBED_REQUESTS = [
    Example(summary="A text", value={"model": "tiles-nano", "input": "Hello world"}),
    Example(summary="Several texts", value={"model": "tiles-nano", "input": ["Hello world", "Good night"]}),
]
EMBEDDING = {"embedding": [0.6, -0.8]}
EMBEDDINGS_REQUESTS = [Example(summary="A text", value={"model": "tiles-nano", "prompt": "Hello world"})]
_DETAILS = {
    "parent_model": "",
    "format": "mlx",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "3.1M",
    "quantization_level": "float32",
}
_ROW = {
    "name": "tiles-nano:latest",
    "model": "tiles-nano:latest",
    "size": 12582912,
    "digest": "4f3c0e8f2b6d5a1c9e7d8b0a3f5c6e1d2b4a7c9f0e8d6b5a3c1f2e4d7b9a0c8e",
    "details": _DETAILS,
}
TAGS = {"models": [_ROW | {"modified_at": "2026-01-01T00:00:00Z"}]}
RUNNING = {"models": [_ROW | {"expires_at": "9999-12-31T23:59:59Z", "size_vram": 12582912, "context_length": 8192}]}
SHOW_REQUESTS = [Example(summary="A model", value={"model": "tiles-nano"})]
SHOWN = {
    "modelfile": "",
    "license": "",
    "parameters": "temperature                    0.7",
    "template": "{% for message in messages %}…{% endfor %}",
    "details": _DETAILS,
    "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
    "capabilities": ["completion", "tools", "thinking"],
    "modified_at": "2026-01-01T00:00:00Z",
}
VERSION = {"version": "0.32.0"}
