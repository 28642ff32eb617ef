"""opencode: one variable holds a whole configuration, which goes before those of its user and of the project."""

import json
from pathlib import Path
from typing import Any

from app.services.coding_agents.agent import KEY_VARIABLE, Agent, Profile, ServerFacts


def _make(server: ServerFacts, folder: Path) -> Profile:
    model = {
        "name": server.model,
        "tool_call": True,
        "reasoning": server.reasoning,
        "limit": {"context": server.context, "output": server.output},
        "attachment": server.sees,
        "modalities": {"input": ["text", *(["image"] if server.sees else [])], "output": ["text"]},
    }
    config: dict[str, Any] = {
        "provider": {
            "tiles": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Tiles Server",
                "options": {"baseURL": server.base_url, "apiKey": f"{{env:{KEY_VARIABLE}}}", "timeout": False},
                "models": {server.model: model},
            }
        },
        "enabled_providers": ["tiles"],
        "model": f"tiles/{server.model}",
        "small_model": f"tiles/{server.model}",
        "share": "disabled",
        "autoupdate": False,
    }
    return Profile(
        {
            "OPENCODE_CONFIG_CONTENT": json.dumps(config),
            "OPENCODE_AUTH_CONTENT": "{}",  # keys of other providers are nothing to this one
            "OPENCODE_DB": str(folder / "opencode.db"),
            KEY_VARIABLE: server.key,
        }
    )


AGENT = Agent(
    name="opencode",
    title="opencode",
    command="opencode",
    install="npm install -g opencode-ai",
    least_context=16_000,
    make=_make,
    quiet={"OPENCODE_DISABLE_MODELS_FETCH": "1"},
    paths=(".opencode/bin/opencode",),
)
