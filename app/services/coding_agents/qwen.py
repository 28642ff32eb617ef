"""Qwen Code: a settings file in its folder, which QWEN_HOME names."""

from pathlib import Path

from app.services.coding_agents.agent import KEY_VARIABLE, Agent, JsonFile, Profile, ServerFacts

_OTHERS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "QWEN_MODEL")  # go before its settings


def _make(server: ServerFacts, folder: Path) -> Profile:
    model = {
        "id": server.model,
        "name": server.model,
        "baseUrl": server.base_url,
        "envKey": KEY_VARIABLE,
        "generationConfig": {
            "contextWindowSize": server.context,
            "timeout": 3_600_000,
            "modalities": {"image": server.sees},
            "samplingParams": {"max_tokens": server.output},
        },
    }
    settings = {
        "modelProviders": {"openai": [model]},
        "security": {"auth": {"selectedType": "openai"}},
        "model": {"name": server.model},
    }
    defaults = {
        "$version": 3,
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
    }
    return Profile(
        {"QWEN_HOME": str(folder), KEY_VARIABLE: server.key, **dict.fromkeys(_OTHERS)},
        files={"settings.json": JsonFile(settings, defaults)},
    )


AGENT = Agent(
    name="qwen",
    title="Qwen Code",
    command="qwen",
    install="npm install -g @qwen-code/qwen-code",
    least_context=24_000,
    make=_make,
)
