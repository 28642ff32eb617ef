"""Continue's command: a configuration file in its folder, which CONTINUE_GLOBAL_DIR names."""

from pathlib import Path

from app.services.coding_agents.agent import KEY_VARIABLE, Agent, JsonFile, Profile, ServerFacts


def _make(server: ServerFacts, folder: Path) -> Profile:
    model = {
        "name": server.model,
        "provider": "openai",
        "model": server.model,
        "apiBase": server.base_url,
        "apiKey": f"${{{{ secrets.{KEY_VARIABLE} }}}}",
        "roles": ["chat", "edit", "apply", "summarize"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": {"contextLength": server.context, "maxTokens": server.output},
        "requestOptions": {"timeout": 3600},
    }
    config = {"name": "Tiles Server", "version": "1.0.0", "schema": "v1", "models": [model]}
    return Profile(
        {"CONTINUE_GLOBAL_DIR": str(folder), KEY_VARIABLE: server.key},
        ("--config", str(folder / "config.yaml")),
        {"config.yaml": JsonFile(config)},  # JSON is YAML
    )


AGENT = Agent(
    name="continue",
    title="Continue",
    command="cn",
    install="npm install -g @continuedev/cli",
    least_context=8_000,
    make=_make,
    quiet={"CONTINUE_METRICS_ENABLED": "0", "CONTINUE_TELEMETRY_ENABLED": "0"},
)
