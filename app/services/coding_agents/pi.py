"""Pi: files in its folder, which PI_CODING_AGENT_DIR names."""

from pathlib import Path

from app.services.coding_agents.agent import KEY_VARIABLE, Agent, JsonFile, Profile, ServerFacts


def _make(server: ServerFacts, folder: Path) -> Profile:
    model = {
        "id": server.model,
        "reasoning": server.reasoning,
        "input": ["text", *(["image"] if server.sees else [])],
        "contextWindow": server.context,
        "maxTokens": server.output,
    }
    provider = {
        "api": "openai-responses",
        "baseUrl": server.base_url,
        "apiKey": f"${KEY_VARIABLE}",
        "models": [model],
    }
    return Profile(
        {"PI_CODING_AGENT_DIR": str(folder), KEY_VARIABLE: server.key},
        files={
            "models.json": JsonFile({"providers": {"tiles": provider}}),
            "settings.json": JsonFile({"defaultProvider": "tiles", "defaultModel": server.model}),
        },
    )


AGENT = Agent(
    name="pi",
    title="Pi",
    command="pi",
    install="npm install -g @earendil-works/pi-coding-agent",
    least_context=8_000,
    make=_make,
    quiet={"PI_TELEMETRY": "0", "PI_SKIP_VERSION_CHECK": "1"},
)
