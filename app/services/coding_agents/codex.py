"""Codex: overrides on its command line; its folder is CODEX_HOME, whose config.toml stays its user's."""

import json
from pathlib import Path
from typing import Any

from app.services.coding_agents.agent import KEY_VARIABLE, Agent, Profile, ServerFacts


def _make(server: ServerFacts, folder: Path) -> Profile:
    overrides: dict[str, Any] = {
        "model": server.model,
        "model_provider": "tiles",
        "model_providers.tiles.name": "Tiles Server",
        "model_providers.tiles.base_url": server.base_url,
        "model_providers.tiles.wire_api": "responses",
        "model_providers.tiles.supports_websockets": True,
        "model_providers.tiles.env_key": KEY_VARIABLE,
        "model_providers.tiles.requires_openai_auth": False,
        "model_providers.tiles.stream_idle_timeout_ms": 3_600_000,
        "model_context_window": server.context,
        "model_auto_compact_token_limit": server.context - server.output,
        "web_search": "disabled",
        "check_for_update_on_startup": False,
        "analytics.enabled": False,
        "feedback.enabled": False,
    }
    words = [word for name, value in overrides.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    return Profile({"CODEX_HOME": str(folder), KEY_VARIABLE: server.key}, tuple(words))


AGENT = Agent(
    name="codex",
    title="Codex",
    command="codex",
    install="npm install -g @openai/codex",
    least_context=16_000,
    make=_make,
)
