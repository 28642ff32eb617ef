"""aider: arguments, which go before its configuration files, and a file about the model."""

from pathlib import Path

from app.services.coding_agents.agent import Agent, JsonFile, Profile, ServerFacts


def _make(server: ServerFacts, folder: Path) -> Profile:
    name = f"openai/{server.model}"
    metadata = {
        "max_input_tokens": server.context,
        "max_output_tokens": server.output,
        "max_tokens": server.output,
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
    }
    arguments = {
        "--model": name,
        "--weak-model": name,
        "--editor-model": name,
        "--openai-api-base": server.base_url,
        "--model-metadata-file": str(folder / "models.json"),
        "--timeout": "3600",
    }
    return Profile(
        {"AIDER_OPENAI_API_KEY": server.key},
        (*(word for pair in arguments.items() for word in pair), "--no-show-model-warnings"),
        {"models.json": JsonFile({name: metadata})},
    )


AGENT = Agent(
    name="aider",
    title="aider",
    command="aider",
    install="python -m pip install aider-install && aider-install",
    least_context=4_000,
    make=_make,
    quiet={"AIDER_ANALYTICS": "false", "AIDER_CHECK_UPDATE": "false", "AIDER_SHOW_RELEASE_NOTES": "false"},
)
