"""Cline: settings files in its folder, which CLINE_DIR names; its key goes by OpenAI's variable."""

from pathlib import Path

from app.services.coding_agents.agent import Agent, JsonFile, Profile, ServerFacts

_PROVIDER = "openai-compatible"
_WRITTEN = "2026-01-01T00:00:00.000Z"  # it wants a time, and needs none


def _make(server: ServerFacts, folder: Path) -> Profile:
    provider = {
        "provider": _PROVIDER,
        "model": server.model,
        "baseUrl": server.base_url,
        "contextWindow": server.context,
        "maxTokens": server.output,
        "timeout": 3_600_000,
    }
    providers = {
        "version": 1,
        "lastUsedProvider": _PROVIDER,
        "modes": {},
        "providers": {_PROVIDER: {"settings": provider, "updatedAt": _WRITTEN, "tokenSource": "manual"}},
    }
    return Profile(
        {"CLINE_DIR": str(folder), "OPENAI_API_KEY": server.key},
        files={
            "data/settings/providers.json": JsonFile(providers),
            "data/settings/global-settings.json": JsonFile({}, {"telemetryOptOut": True, "autoUpdateEnabled": False}),
        },
    )


AGENT = Agent(
    name="cline",
    title="Cline",
    command="cline",
    install="npm install -g cline",
    least_context=16_000,
    make=_make,
    quiet={"CLINE_NO_AUTO_UPDATE": "1"},
)
